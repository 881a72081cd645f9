"""Pure functions of a position: shapes, phases, Megatron's curves, lint."""

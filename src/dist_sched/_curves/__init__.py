"""Pure functions of a position: shapes, phases, Megatron-LM's curves, and lint. No torch."""

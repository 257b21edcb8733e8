//! What a run will need: memory, and time per step on any device; and the peak that was measured.

pub mod memory_plan;
pub mod peak_memory;
pub mod roofline;

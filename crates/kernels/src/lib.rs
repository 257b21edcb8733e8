//! Fused differentiable tensor operations for candle.

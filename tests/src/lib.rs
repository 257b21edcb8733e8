//! What the black-box tests share: the binary and small inputs.

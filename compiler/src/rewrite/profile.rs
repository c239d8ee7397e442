//! [`Profile`]: the figures of a nominal machine.

/// Figures of a nominal machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name, as traces say it.
    pub name: &'static str,
    /// Multiply-adds per microsecond.
    pub macs: f64,
    /// Bytes per microsecond.
    pub bytes: f64,
    /// Microseconds per operator.
    pub launch: f64,
    /// What an activation costs of that: little where it is fused into the convolution before it.
    pub activation: f64,
    /// How many times as long elements take that are picked one by one, or in another order.
    pub picked: f64,
    /// What a 1x1 depthwise convolution costs of that: more where a scale and shift has a cheaper operator of its own.
    pub per_channel: f64,
}

/// What ONNX Runtime and OpenVINO do with a node: for `optimize`.
pub const PORTABLE: Profile = Profile {
    name: "portable",
    macs: 50_000.0,
    bytes: 20_000.0,
    launch: 1.0,
    activation: 0.25,
    picked: 3.0,
    per_channel: 1.75,
};

/// What convc's own instructions do: for `compile`, `run` and `bench`.
pub const PLAN: Profile = Profile {
    name: "plan",
    macs: 100_000.0,
    bytes: 20_000.0,
    launch: 2.0,
    activation: 1.0,
    picked: 3.0,
    per_channel: 1.0,
};

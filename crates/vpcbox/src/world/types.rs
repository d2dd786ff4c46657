//! Instance types: what each can hold. Numbers from AWS's own tables; a type that is missing here is refused at start, because
//! guessed limits would make a test lie.

/// An instance type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceType {
    /// For example `m5.large`.
    pub name: &'static str,
    /// ENIs on its one network card, the primary included.
    pub max_enis: u32,
    /// IPv4 addresses per ENI, and as many IPv6 ones.
    pub addresses_per_eni: usize,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    /// As DescribeInstanceTypes words it.
    pub network: &'static str,
}

const fn x86(
    name: &'static str,
    max_enis: u32,
    addresses_per_eni: usize,
    vcpus: u32,
    memory_mib: u32,
    network: &'static str,
) -> InstanceType {
    InstanceType { name, max_enis, addresses_per_eni, vcpus, memory_mib, architecture: "x86_64", network }
}

const fn arm(
    name: &'static str,
    max_enis: u32,
    addresses_per_eni: usize,
    vcpus: u32,
    memory_mib: u32,
    network: &'static str,
) -> InstanceType {
    InstanceType { name, max_enis, addresses_per_eni, vcpus, memory_mib, architecture: "arm64", network }
}

/// All types with one network card that are known, by name.
pub const TYPES: &[InstanceType] = &[
    x86("c5.2xlarge", 4, 15, 8, 16_384, "Up to 10 Gigabit"),
    x86("c5.4xlarge", 8, 30, 16, 32_768, "Up to 10 Gigabit"),
    x86("c5.large", 3, 10, 2, 4096, "Up to 10 Gigabit"),
    x86("c5.xlarge", 4, 15, 4, 8192, "Up to 10 Gigabit"),
    x86("c5n.18xlarge", 15, 50, 72, 196_608, "100 Gigabit"),
    x86("c6i.4xlarge", 8, 30, 16, 32_768, "Up to 12.5 Gigabit"),
    x86("g4dn.xlarge", 3, 10, 4, 16_384, "Up to 25 Gigabit"),
    x86("m5.12xlarge", 8, 30, 48, 196_608, "12 Gigabit"),
    x86("m5.16xlarge", 15, 50, 64, 262_144, "20 Gigabit"),
    x86("m5.24xlarge", 15, 50, 96, 393_216, "25 Gigabit"),
    x86("m5.2xlarge", 4, 15, 8, 32_768, "Up to 10 Gigabit"),
    x86("m5.4xlarge", 8, 30, 16, 65_536, "Up to 10 Gigabit"),
    x86("m5.8xlarge", 8, 30, 32, 131_072, "10 Gigabit"),
    x86("m5.large", 3, 10, 2, 8192, "Up to 10 Gigabit"),
    x86("m5.xlarge", 4, 15, 4, 16_384, "Up to 10 Gigabit"),
    arm("m6g.large", 3, 10, 2, 8192, "Up to 10 Gigabit"),
    arm("m6g.medium", 2, 4, 1, 4096, "Up to 10 Gigabit"),
    arm("m6g.xlarge", 4, 15, 4, 16_384, "Up to 10 Gigabit"),
    x86("m6i.32xlarge", 15, 50, 128, 524_288, "50 Gigabit"),
    x86("m6i.large", 3, 10, 2, 8192, "Up to 12.5 Gigabit"),
    x86("m6i.xlarge", 4, 15, 4, 16_384, "Up to 12.5 Gigabit"),
    arm("m7g.large", 3, 10, 2, 8192, "Up to 12.5 Gigabit"),
    arm("m7g.medium", 2, 4, 1, 4096, "Up to 12.5 Gigabit"),
    x86("m7i.48xlarge", 15, 50, 192, 786_432, "50 Gigabit"),
    x86("r5.8xlarge", 8, 30, 32, 262_144, "10 Gigabit"),
    x86("r5.large", 3, 10, 2, 16_384, "Up to 10 Gigabit"),
    x86("r5.xlarge", 4, 15, 4, 32_768, "Up to 10 Gigabit"),
    x86("t3.2xlarge", 4, 15, 8, 32_768, "Up to 5 Gigabit"),
    x86("t3.large", 3, 12, 2, 8192, "Up to 5 Gigabit"),
    x86("t3.medium", 3, 6, 2, 4096, "Up to 5 Gigabit"),
    x86("t3.micro", 2, 2, 2, 1024, "Up to 5 Gigabit"),
    x86("t3.nano", 2, 2, 2, 512, "Up to 5 Gigabit"),
    x86("t3.small", 3, 4, 2, 2048, "Up to 5 Gigabit"),
    x86("t3.xlarge", 4, 15, 4, 16_384, "Up to 5 Gigabit"),
    arm("t4g.medium", 3, 6, 2, 4096, "Up to 5 Gigabit"),
    arm("t4g.micro", 2, 2, 2, 1024, "Up to 5 Gigabit"),
    arm("t4g.small", 3, 4, 2, 2048, "Up to 5 Gigabit"),
];

/// The type of this name.
pub fn find(name: &str) -> Option<&'static InstanceType> {
    TYPES.iter().find(|t| t.name == name)
}

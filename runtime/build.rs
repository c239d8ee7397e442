//! Compiles the schema of plan files; protox is a protobuf compiler in Rust, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/plan.proto");
    prost_build::Config::new().compile_fds(protox::compile(["proto/plan.proto"], ["proto"])?)?;
    Ok(())
}

//! Compiles the protocol definitions. In pure Rust: no `protoc` is needed.

use std::path::PathBuf;

const FILES: [&str; 11] = [
    "tallyhouse/v1/audit.proto",
    "tallyhouse/v1/delivery.proto",
    "tallyhouse/v1/event.proto",
    "tallyhouse/v1/event_type.proto",
    "tallyhouse/v1/ingest.proto",
    "tallyhouse/v1/metrics.proto",
    "tallyhouse/v1/organization.proto",
    "tallyhouse/v1/outcome.proto",
    "tallyhouse/v1/query.proto",
    "tallyhouse/v1/segment.proto",
    "tallyhouse/v1/write_key.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    // For the reflection service.
    std::fs::write(out_dir.join("tallyhouse.binpb"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        .codec_path("crate::transport::proto::codec::CountingCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

//! The protocol's types and services, generated from `proto/`, and how their messages are read.

pub(in crate::transport) mod codec;
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
mod generated {
    tonic::include_proto!("tallyhouse.v1");
}

pub use generated::*;

/// The protocol's description, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tallyhouse.binpb"));

//! The network: what trains ([`slice`]), layers, and which party holds which blocks.

pub mod slice;

//! Runs in processes of their own: killed, interrupted, left alone, resumed.

#[cfg(feature = "nodes")]
mod access;
mod bench;
mod compare;
mod export;
#[cfg(feature = "nodes")]
mod faults;
mod model;
#[cfg(feature = "nodes")]
mod nodes;
mod pretrain;
mod resume;
mod signals;
#[cfg(feature = "nodes")]
mod silos;
mod support;

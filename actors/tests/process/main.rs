//! Runs in processes of their own: killed, interrupted, left alone, resumed.

#[cfg(feature = "nodes")]
mod access;
mod bench;
#[cfg(feature = "nodes")]
mod between;
mod compare;
mod export;
#[cfg(feature = "nodes")]
mod faults;
#[cfg(feature = "nodes")]
mod hostile;
mod model;
#[cfg(feature = "nodes")]
mod nodes;
mod pretrain;
mod resume;
mod signals;
#[cfg(feature = "nodes")]
mod silos;
mod support;

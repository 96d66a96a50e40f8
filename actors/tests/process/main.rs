//! Runs in processes of their own: killed, interrupted, left alone, resumed.

mod bench;
mod compare;
mod export;
mod model;
mod pretrain;
mod resume;
mod signals;
mod support;

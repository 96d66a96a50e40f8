//! Runs in processes of their own: killed, interrupted, left alone, resumed.

mod compare;
mod pretrain;
mod resume;
mod signals;
mod support;

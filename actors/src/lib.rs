//! x

pub mod cli;
pub mod cuda;

//! What a finished run shows.

pub mod plots;

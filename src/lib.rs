//! fellrec: federated, split fine-tuning of language models for recommendation.

pub mod blueprint;
pub mod checkpoint;
pub mod config;
pub mod cost;
pub mod data;
pub mod federation;
pub mod history;
pub mod ids;
pub mod model;
pub mod ranking;
pub mod report;
pub mod seed;
pub mod split;
pub mod training;

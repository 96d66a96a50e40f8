//! What an operator asks of a running federation, with a kit and a connection of its own.

use std::time::Duration;

use fellrec::config::NodesConfig;
use fellrec::split::wire;
use fellrec::told::chain;
use tokio::time::timeout;
use tracing::warn;

use super::{Kit, NodeError};
use crate::link::carried::Carried;
use crate::link::line::Line;
use crate::registry::MemberName;

/// Longest wait for the broker, and for the supervisor.
const PATIENCE: Duration = Duration::from_secs(10);

/// Puts a question to the supervisor. To be called within an actix system.
///
/// # Errors
/// No broker, or no answer within ten seconds.
pub async fn ask<M: Carried>(
    kit: &Kit,
    nodes: &NodesConfig,
    life: u64,
    question: &M,
) -> Result<M::Result, NodeError> {
    let dial = kit.dial(PATIENCE);
    let line = Line::dial(dial, kit.run.clone(), kit.sealer(), life, nodes).await?;
    let frame = wire::encode(question).expect("a question is plain data");
    let call = line.caller().call(MemberName::Supervisor, M::LANE, M::NAME, frame);
    let silent = || NodeError::NoSupervisor { after: PATIENCE };
    let answer = timeout(PATIENCE, call).await.map_err(|_| silent())?;
    let answer = answer.map_err(|error| {
        warn!(error = chain(&error), "no answer");
        silent()
    })?;
    wire::decode(&answer).map_err(|_| silent())
}

//! The clients that are mixed with each other in one round.

use tch::{Device, Kind, Tensor};
use thiserror::Error;

use crate::ids::ClientId;
use crate::model::slice::{LayoutError, Part, Theta};

/// Numbers that one stacked block holds, all clients together: 4 MiB in f64.
const BLOCK_NUMBERS: i64 = 1 << 19;

/// What one client brings to the round.
#[derive(Clone, Copy, Debug)]
pub struct ParticipantTheta<'a> {
    /// Whose.
    pub client: ClientId,
    /// Trainable tensors after local training.
    pub theta: &'a Theta,
    /// The same tensors when the round started; needed where updates are compared.
    pub start: Option<&'a Theta>,
}

/// Why clients cannot be mixed with each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CohortError {
    /// Nobody takes part.
    #[error("a round needs at least one participant, got none")]
    Empty,
    /// One client brought two sets of tensors.
    #[error("{client} takes part twice in one round")]
    Duplicate {
        /// Which.
        client: ClientId,
    },
    /// A client's tensors are not those of the first client.
    #[error("the tensors of {client} differ in layout from those of the first participant")]
    Layout {
        /// Which.
        client: ClientId,
        /// Where they differ.
        source: LayoutError,
    },
    /// Updates are asked for, but the value at the start of the round is unknown.
    #[error("{client} has no tensors of the round's start to compute its update from")]
    NoStart {
        /// Which.
        client: ClientId,
    },
}

/// The participants of a round: at least one, in client-id order, all of one layout.
///
/// Every sum over clients runs in this order, so results do not depend on who answered first.
#[derive(Clone, Debug)]
pub struct Cohort<'a> {
    participants: Vec<ParticipantTheta<'a>>,
}

impl<'a> Cohort<'a> {
    /// Sorts and checks the participants, given in any order.
    ///
    /// # Errors
    /// [`CohortError::Empty`], [`CohortError::Duplicate`] and [`CohortError::Layout`].
    pub fn new(
        participants: impl IntoIterator<Item = ParticipantTheta<'a>>,
    ) -> Result<Self, CohortError> {
        let mut participants: Vec<_> = participants.into_iter().collect();
        participants.sort_by_key(|participant| participant.client);
        let Some(first) = participants.first() else { return Err(CohortError::Empty) };
        if let Some(pair) = participants.windows(2).find(|pair| pair[0].client == pair[1].client) {
            return Err(CohortError::Duplicate { client: pair[0].client });
        }
        for ParticipantTheta { client, theta, start } in &participants {
            for theirs in [Some(*theta), *start].into_iter().flatten() {
                theirs
                    .same_layout(first.theta)
                    .map_err(|source| CohortError::Layout { client: *client, source })?;
            }
        }
        Ok(Self { participants })
    }

    /// Number of participants, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "a cohort is never empty")]
    pub fn len(&self) -> usize {
        self.participants.len()
    }

    /// Who takes part, ascending.
    pub fn clients(&self) -> Vec<ClientId> {
        self.participants.iter().map(|participant| participant.client).collect()
    }

    /// Everyone's tensors, in client-id order.
    pub fn thetas(&self) -> Vec<&'a Theta> {
        self.participants.iter().map(|participant| participant.theta).collect()
    }

    /// Everyone's tensors at the start of the round, in client-id order.
    ///
    /// # Errors
    /// [`CohortError::NoStart`] for the first client without them.
    pub fn starts(&self) -> Result<Vec<&'a Theta>, CohortError> {
        let start =
            |p: &ParticipantTheta<'a>| p.start.ok_or(CohortError::NoStart { client: p.client });
        self.participants.iter().map(start).collect()
    }
}

/// The same tensor of every client, by its position in the part.
pub(super) fn across<'a>(thetas: &[&'a Theta], part: Part, index: usize) -> Vec<&'a Tensor> {
    thetas.iter().map(|theta| &theta.part(part).tensors[index].tensor).collect()
}

/// Cuts `numel` columns into `(start, length)` blocks that bound the memory of a stack.
pub(super) fn column_blocks(numel: usize, clients: usize) -> impl Iterator<Item = (i64, i64)> {
    let (numel, clients) = (numel as i64, clients as i64);
    let width = (BLOCK_NUMBERS / clients).max(1);
    (0..numel).step_by(width as usize).map(move |start| (start, width.min(numel - start)))
}

/// Clients of one band of r x r products against all clients, bounded like a column block.
pub(super) fn row_block(clients: usize, rank: i64) -> i64 {
    (BLOCK_NUMBERS / (clients as i64 * rank * rank).max(1)).clamp(1, clients as i64)
}

/// One row a client: columns `start..start + length` of its flattened tensor, `[N, length]`, f64.
pub(super) fn stack_rows(tensors: &[&Tensor], start: i64, length: i64) -> Tensor {
    let row = |tensor: &&Tensor| {
        tensor.detach().reshape([-1]).narrow(0, start, length).to_device(Device::Cpu)
    };
    let rows: Vec<Tensor> = tensors.iter().map(row).collect();
    Tensor::stack(&rows, 0).to_kind(Kind::Double)
}

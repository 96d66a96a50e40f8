//! The aggregator's state machine: the slices of one open round, checked, mixed, and handed back.
//!
//! It holds copies only. What it loses is asked for again: senders keep theirs until the commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::cohort::{Cohort, ParticipantTheta};
use super::mixing::{Mixer, MixingError, MixingInput, MixingWeights};
use super::round::{Attempt, Participant};
use super::screening::{ScreeningVerdict, Submission, screen};
use crate::config::ScreeningConfig;
use crate::ids::ClientId;
use crate::model::cut::Place;
use crate::model::slice::{Digest, LayoutError, Slice, Theta};
use crate::told::chain;

/// One place's tensors of one client, after its local round and as they were at its start.
#[derive(Debug, Serialize, Deserialize)]
pub struct SubmittedSlice {
    /// After the local round.
    pub trained: Slice,
    /// At the start of the round: updates are measured from it.
    pub start: Slice,
}

/// Why the aggregator cannot go on with a round.
#[derive(Debug, Error)]
pub enum CollectionError {
    /// The slice belongs to an attempt that is over.
    #[error("attempt {got:?} is over, the open one is {open:?}")]
    StaleAttempt {
        /// Attempt of the message.
        got: Attempt,
        /// Attempt that is open.
        open: Attempt,
    },
    /// Slices are not here, as after a restart; they are to be submitted again.
    #[error("slices of {} clients are not here", clients.len())]
    Missing {
        /// Clients with at least one slice missing.
        clients: Vec<ClientId>,
    },
    /// The slice is of a place that the model does not have.
    #[error("the model has no trainable tensors at {place:?}")]
    UnknownPlace {
        /// Place of the message.
        place: Place,
    },
    /// The slice is not one of the model's.
    #[error("the slice of {place:?} does not fit the model")]
    Layout {
        /// Place of the message.
        place: Place,
        /// First difference.
        source: LayoutError,
    },
    /// The mixing rule refused the round.
    #[error("failed to mix")]
    Mixing(#[from] MixingError),
    /// Any of these but missing slices at another node, with its causes.
    #[error("{0}")]
    Told(String),
}

/// What of a [`CollectionError`] crosses between nodes: whom to ask again, or a text for people.
#[derive(Serialize, Deserialize)]
enum ToldCollection {
    Missing(Vec<ClientId>),
    Other(String),
}

impl Serialize for CollectionError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = match self {
            Self::Missing { clients } => ToldCollection::Missing(clients.clone()),
            other => ToldCollection::Other(chain(other)),
        };
        told.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CollectionError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match ToldCollection::deserialize(deserializer)? {
            ToldCollection::Missing(clients) => Self::Missing { clients },
            ToldCollection::Other(text) => Self::Told(text),
        })
    }
}

/// New slices of every participant, by client and place.
#[derive(Debug)]
pub struct MixedSlices {
    /// Ready to be staged.
    pub slices: BTreeMap<ClientId, BTreeMap<Place, Slice>>,
    /// The weights they were made with.
    pub weights: MixingWeights,
    /// Digest over all new slices in client-id order.
    pub digest: Digest,
    /// What those start from who have none; only if asked for.
    pub mean: Option<BTreeMap<Place, Slice>>,
}

/// Slices of the open round.
///
/// Which attempt is open is the supervisor's to say, by what it asks for; a client's word counts for its own slices
/// alone, so that none can drop another's.
#[derive(Debug)]
pub struct Collection {
    /// What the model has at every place.
    layout: BTreeMap<Place, Slice>,
    open: Option<Attempt>,
    held: BTreeMap<ClientId, Held>,
}

/// What one client submitted last.
#[derive(Debug)]
struct Held {
    attempt: Attempt,
    slices: BTreeMap<Place, SubmittedSlice>,
}

impl Held {
    fn new(attempt: Attempt) -> Self {
        Self { attempt, slices: BTreeMap::new() }
    }
}

impl Collection {
    /// An empty collection for slices as the model has them, place by place.
    pub fn new(layout: BTreeMap<Place, Slice>) -> Self {
        Self { layout, open: None, held: BTreeMap::new() }
    }

    /// Takes a slice in and returns its receipt. A repeated slice replaces its twin; a slice of a
    /// newer attempt replaces all that its client submitted before.
    pub fn submit(
        &mut self,
        attempt: Attempt,
        client: ClientId,
        place: Place,
        slice: SubmittedSlice,
    ) -> Result<Digest, CollectionError> {
        let expected = self.layout.get(&place).ok_or(CollectionError::UnknownPlace { place })?;
        for slice in [&slice.trained, &slice.start] {
            slice
                .same_layout(expected)
                .map_err(|source| CollectionError::Layout { place, source })?;
        }
        let last = self.held.get(&client).map(|held| held.attempt);
        if let Some(open) = self.open.max(last).filter(|open| attempt < *open) {
            return Err(CollectionError::StaleAttempt { got: attempt, open });
        }
        let receipt = slice.trained.digest();
        let held = self.held.entry(client).or_insert_with(|| Held::new(attempt));
        if held.attempt != attempt {
            *held = Held::new(attempt);
        }
        held.slices.insert(place, slice);
        Ok(receipt)
    }

    /// Checks the updates of `clients` against `screening`; returns those refused, with the reason.
    pub fn screen(
        &mut self,
        attempt: Attempt,
        clients: &[ClientId],
        screening: &ScreeningConfig,
    ) -> Result<BTreeMap<ClientId, String>, CollectionError> {
        self.check(attempt, clients)?;
        let mut thetas = BTreeMap::new();
        for client in clients {
            thetas.insert(*client, self.thetas(*client));
        }
        let submissions = thetas.iter().map(|(client, (theta, start))| {
            // Losses are the supervisor's to check: it has them and we do not.
            (*client, Submission { theta, start, loss: 0.0 })
        });
        let verdicts = screen(&submissions.collect(), screening);
        let reason = |(client, verdict)| match verdict {
            ScreeningVerdict::Accepted { .. } => None,
            ScreeningVerdict::Rejected(rejection) => Some((client, rejection.to_string())),
        };
        Ok(verdicts.into_iter().filter_map(reason).collect())
    }

    /// Mixes the participants. All from one snapshot: what is here stays as it is.
    pub fn mix(
        &mut self,
        attempt: Attempt,
        participants: &BTreeMap<ClientId, Participant>,
        mixer: &Mixer,
        with_mean: bool,
    ) -> Result<MixedSlices, CollectionError> {
        let clients: Vec<ClientId> = participants.keys().copied().collect();
        self.check(attempt, &clients)?;
        let mut thetas = Vec::with_capacity(clients.len());
        for client in &clients {
            thetas.push((*client, self.thetas(*client)));
        }
        let cohort = Cohort::new(thetas.iter().map(|(client, (theta, start))| ParticipantTheta {
            client: *client,
            theta,
            start: Some(start),
        }))
        .map_err(MixingError::from)?;
        let openness = participants.iter().map(|(client, p)| (*client, p.openness)).collect();
        let data_sizes = participants.iter().map(|(client, p)| (*client, p.report.rows)).collect();
        let input = MixingInput {
            round: attempt.round,
            cohort: &cohort,
            openness: &openness,
            data_sizes: &data_sizes,
        };
        let mixed = mixer.mix(&input, with_mean)?;
        let digests: Vec<String> = mixed
            .thetas
            .iter()
            .map(|(client, theta)| format!("{client} {}", theta.digest()))
            .collect();
        let digest = Digest::of(digests.join("\n").as_bytes());
        let slices =
            mixed.thetas.into_iter().map(|(client, theta)| (client, self.by_place(client, theta)));
        let slices = slices.collect();
        // Everyone's tensors are of one layout.
        let mean = mixed.mean.map(|theta| self.by_place(clients[0], theta));
        Ok(MixedSlices { slices, weights: mixed.weights, digest, mean })
    }

    /// Drops all slices; the attempt stays open.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// Opens the attempt and drops what is of others, also of those that a client only says there are; says who has
    /// not submitted all of it.
    fn check(&mut self, attempt: Attempt, clients: &[ClientId]) -> Result<(), CollectionError> {
        if let Some(open) = self.open
            && attempt < open
        {
            return Err(CollectionError::StaleAttempt { got: attempt, open });
        }
        self.open = Some(attempt);
        self.held.retain(|_, held| held.attempt == attempt);
        let complete = |client: &ClientId| {
            self.held.get(client).is_some_and(|held| {
                held.attempt == attempt && held.slices.len() == self.layout.len()
            })
        };
        let missing: Vec<ClientId> =
            clients.iter().filter(|client| !complete(client)).copied().collect();
        if missing.is_empty() { Ok(()) } else { Err(CollectionError::Missing { clients: missing }) }
    }

    /// Trained and start tensors of a client whose slices are all here, as handles.
    fn thetas(&self, client: ClientId) -> (Theta, Theta) {
        let held = &self.held[&client].slices;
        let gather = |select: fn(&SubmittedSlice) -> &Slice| {
            let part = |wanted: fn(&Place) -> bool| {
                let slices = held.iter().filter(|(place, _)| wanted(place));
                Slice::new(slices.flat_map(|(_, slice)| select(slice).share().tensors).collect())
            };
            Theta {
                front: part(|place| *place == Place::Front),
                body: part(|place| matches!(place, Place::Stage(_))),
                back: part(|place| *place == Place::Back),
            }
        };
        (gather(|slice| &slice.trained), gather(|slice| &slice.start))
    }

    /// Cuts a mixed theta into the places its tensors came from. Stages hold rising ranges of
    /// blocks, so the body is their slices one after the other.
    fn by_place(&self, client: ClientId, theta: Theta) -> BTreeMap<Place, Slice> {
        let held = &self.held[&client].slices;
        let mut body = theta.body.tensors.into_iter();
        let mut by_place = BTreeMap::new();
        for place in self.layout.keys().filter(|place| matches!(place, Place::Stage(_))) {
            let tensors = body.by_ref().take(held[place].trained.tensors.len()).collect();
            by_place.insert(*place, Slice::new(tensors));
        }
        by_place.insert(Place::Front, theta.front);
        by_place.insert(Place::Back, theta.back);
        by_place
    }
}

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
use crate::model::slice::{Digest, Slice, Theta};
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
#[derive(Debug)]
pub struct Collection {
    places: Vec<Place>,
    open: Option<Attempt>,
    slices: BTreeMap<ClientId, BTreeMap<Place, SubmittedSlice>>,
}

impl Collection {
    /// An empty collection for slices of these places.
    pub fn new(places: Vec<Place>) -> Self {
        Self { places, open: None, slices: BTreeMap::new() }
    }

    /// Takes a slice in and returns its receipt. A repeated slice replaces its twin; a slice of a
    /// newer attempt opens that attempt and drops the older one's.
    pub fn submit(
        &mut self,
        attempt: Attempt,
        client: ClientId,
        place: Place,
        slice: SubmittedSlice,
    ) -> Result<Digest, CollectionError> {
        if !self.places.contains(&place) {
            return Err(CollectionError::UnknownPlace { place });
        }
        match self.open {
            Some(open) if attempt < open => {
                return Err(CollectionError::StaleAttempt { got: attempt, open });
            }
            Some(open) if attempt == open => {}
            _ => {
                self.open = Some(attempt);
                self.slices.clear();
            }
        }
        let receipt = slice.trained.digest();
        self.slices.entry(client).or_default().insert(place, slice);
        Ok(receipt)
    }

    /// Checks the updates of `clients` against `screening`; returns those refused, with the reason.
    pub fn screen(
        &self,
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
        &self,
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
        self.slices.clear();
    }

    fn check(&self, attempt: Attempt, clients: &[ClientId]) -> Result<(), CollectionError> {
        if let Some(open) = self.open
            && attempt < open
        {
            return Err(CollectionError::StaleAttempt { got: attempt, open });
        }
        let complete = |client: &ClientId| {
            self.open == Some(attempt)
                && self.slices.get(client).is_some_and(|held| held.len() == self.places.len())
        };
        let missing: Vec<ClientId> =
            clients.iter().filter(|client| !complete(client)).copied().collect();
        if missing.is_empty() { Ok(()) } else { Err(CollectionError::Missing { clients: missing }) }
    }

    /// Trained and start tensors of a client whose slices are all here, as handles.
    fn thetas(&self, client: ClientId) -> (Theta, Theta) {
        let held = &self.slices[&client];
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
        let held = &self.slices[&client];
        let mut body = theta.body.tensors.into_iter();
        let mut by_place = BTreeMap::new();
        for place in self.places.iter().filter(|place| matches!(place, Place::Stage(_))) {
            let tensors = body.by_ref().take(held[place].trained.tensors.len()).collect();
            by_place.insert(*place, Slice::new(tensors));
        }
        by_place.insert(Place::Front, theta.front);
        by_place.insert(Place::Back, theta.back);
        by_place
    }
}

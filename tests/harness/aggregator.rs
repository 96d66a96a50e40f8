//! The aggregator: the product's collection behind a mailbox, and the staging of what it mixes.

use std::collections::BTreeMap;
use std::rc::Rc;

use fellrec::checkpoint::Receipt;
use fellrec::federation::collection::{Collection, CollectionError, MixedSlices, SubmittedSlice};
use fellrec::federation::mixing::{Mixer, Robust, rule_of_run};
use fellrec::federation::round::{Attempt, Participant};
use fellrec::ids::ClientId;
use fellrec::model::cut::Place;
use fellrec::model::slice::{Digest, Slice};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::supervisor::text;
use super::world::{Receipts, SHARED_FOLDER, client_folder, stage_folder};

pub struct Aggregator {
    cluster: Rc<Cluster>,
    collection: Collection,
    mixer: Mixer,
    mixing: Option<Mixing>,
    jobs: JoinSet<()>,
}

/// The newest mix: `outcome` is there when every member has staged.
struct Mixing {
    attempt: Attempt,
    outcome: Option<Result<Receipts, Setback>>,
}

/// Why a round does not go on.
#[derive(Clone, Debug)]
pub enum Setback {
    /// These clients are to submit again.
    Missing(Vec<ClientId>),
    /// The round is to be opened again.
    Failed(String),
}

impl From<CollectionError> for Setback {
    fn from(error: CollectionError) -> Self {
        match error {
            CollectionError::Missing { clients } => Setback::Missing(clients),
            other => Setback::Failed(text(&other)),
        }
    }
}

impl Aggregator {
    pub fn new(cluster: Rc<Cluster>) -> Self {
        let collection = Collection::new(cluster.world.blueprint.layout.expected_slices());
        let config = cluster.world.config();
        let rule = rule_of_run(&config.mixing, config.federation.rounds);
        let mixer = Mixer::new(rule, Robust::of(&config.mixing));
        Self { cluster, collection, mixer, mixing: None, jobs: JoinSet::new() }
    }

    pub fn submit(
        &mut self,
        attempt: Attempt,
        client: ClientId,
        place: Place,
        slice: SubmittedSlice,
    ) -> Result<Digest, String> {
        self.collection.submit(attempt, client, place, slice).map_err(|error| text(&error))
    }

    pub fn screen(
        &mut self,
        attempt: Attempt,
        participants: &[ClientId],
    ) -> Result<BTreeMap<ClientId, String>, Setback> {
        let rules = &self.cluster.world.config().screening;
        Ok(self.collection.screen(attempt, participants, rules)?)
    }

    /// Mixes and has every member stage; `None` while that is under way.
    pub fn mix(
        &mut self,
        attempt: Attempt,
        participants: &BTreeMap<ClientId, Participant>,
        shared: bool,
    ) -> Option<Result<Receipts, Setback>> {
        if let Some(newest) = self.mixing.as_ref().filter(|mixing| mixing.attempt >= attempt) {
            let stale = || Some(Err(Setback::Failed("the attempt is over".to_owned())));
            return if newest.attempt == attempt { newest.outcome.clone() } else { stale() };
        }
        let mixed = match self.collection.mix(attempt, participants, &self.mixer, shared) {
            Ok(mixed) => mixed,
            Err(error) => return Some(Err(error.into())),
        };
        self.jobs.abort_all();
        self.mixing = Some(Mixing { attempt, outcome: None });
        let cluster = Rc::clone(&self.cluster);
        self.jobs.spawn_local(async move {
            let outcome = stage(&cluster, attempt, mixed).await.map_err(Setback::Failed);
            cluster.aggregator.with(|aggregator| {
                aggregator.mixing = Some(Mixing { attempt, outcome: Some(outcome) });
            });
        });
        None
    }
}

async fn stage(
    cluster: &Cluster,
    attempt: Attempt,
    mixed: MixedSlices,
) -> Result<Receipts, String> {
    let mut receipts = Receipts::new();
    let receipt = |digest| Receipt { round: attempt.round.next(), digest };
    if let Some(mean) = mixed.mean {
        let world = &cluster.world;
        let kept = world.run_store().referenced().into_values().flatten().collect();
        let staged = world.shared_store().stage(attempt.round.next(), mean, &kept);
        receipts.insert(SHARED_FOLDER.to_owned(), receipt(staged.map_err(|error| text(&error))?));
    }
    for (client, mut slices) in mixed.slices {
        for (stage, shard) in cluster.shards.iter().enumerate() {
            let slice: Slice = slices.remove(&Place::Stage(stage)).expect("every place is mixed");
            let staged = shard.call(move |shard| shard.stage(client, attempt, &slice)).await;
            let digest = staged.map_err(|error| text(&error))?;
            receipts.insert(stage_folder(stage, client), receipt(digest));
        }
        let node = &cluster.clients[client.0 as usize];
        let staged = node.call(move |client| client.stage(attempt, &slices)).await;
        receipts.insert(client_folder(client), receipt(staged.map_err(|error| text(&error))?));
    }
    Ok(receipts)
}

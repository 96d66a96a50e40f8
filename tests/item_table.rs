//! Claims about the item table (method.md 6.2): encoded over the cut it is what the whole model makes of
//! each item's own text, its traffic is known before and counted, and an epoch begins with a new one.

mod common;

use std::sync::Arc;

use common::{Ends, ITEMS, Party, SEED, optimizer, recformer, split, texts};
use fellrec::config::{Layers, Loaded, OrNone, Trainable};
use fellrec::cost::ClientCost;
use fellrec::data::{ClientData, TrainingRows, UserSplit};
use fellrec::ids::{ClientId, ItemId, Round, StepId, UserId};
use fellrec::model::backbone::Inputs;
use fellrec::model::encoder::EncoderInputs;
use fellrec::split::{
    BodyGradient, BodySession, ClientModel, DecodeTurn, HiddenStates, SplitError, StepPlan,
    unit_rows,
};
use fellrec::training::{
    BodyLink, Examples, ItemTable, LocalWork, TextExamples, Timed, encode_table, local_round,
};
use tch::{Device, Tensor, no_grad};

/// Stages that answer at once, and what they were asked.
struct Local {
    stages: Vec<BodySession>,
    /// Positions and lengths of every batch that was evaluated on stage 0.
    evaluated: Vec<(i64, Vec<i64>)>,
    signs_of_work: usize,
}

impl Local {
    fn new(stages: Vec<BodySession>) -> Self {
        Self { stages, evaluated: Vec::new(), signs_of_work: 0 }
    }
}

fn timed<T>(value: T) -> Timed<T> {
    Timed { value, seconds: 0.0 }
}

impl BodyLink for Local {
    type Error = SplitError;
    type Permit = ();

    async fn permit(&mut self) -> Result<(), SplitError> {
        Ok(())
    }

    async fn forward(
        &mut self,
        stage: usize,
        step: StepId,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        self.stages[stage].forward(step, &hidden).map(timed)
    }

    async fn backward(
        &mut self,
        stage: usize,
        step: StepId,
        grad: HiddenStates,
    ) -> Result<Timed<BodyGradient>, SplitError> {
        self.stages[stage].backward(step, &grad).map(timed)
    }

    async fn step(
        &mut self,
        stage: usize,
        step: StepId,
        plan: StepPlan,
    ) -> Result<Timed<()>, SplitError> {
        self.stages[stage].step(step, plan).map(timed)
    }

    async fn evaluate(
        &mut self,
        stage: usize,
        hidden: HiddenStates,
    ) -> Result<Timed<HiddenStates>, SplitError> {
        if stage == 0 {
            let lengths = hidden.lengths().expect("encoders are told lengths");
            let lengths = Vec::try_from(lengths).expect("whole numbers");
            self.evaluated.push((hidden.tensor().size()[1], lengths));
        }
        self.stages[stage].evaluate(&hidden).map(timed)
    }

    async fn decode(
        &mut self,
        _stage: usize,
        _turn: DecodeTurn,
        _hidden: HiddenStates,
    ) -> Result<Option<Timed<HiddenStates>>, SplitError> {
        unreachable!("an encoder writes nothing")
    }

    fn progress(&mut self, _step: StepId, _of: u64) {}

    fn working(&mut self) {
        self.signs_of_work += 1;
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

fn party(stages: &[(i64, i64)]) -> (ClientModel, Local) {
    tch::set_num_threads(1);
    let stages = OrNone::Some(stages.to_vec());
    let party = Party::new(Ends::Texts, Trainable::Full, &split(1, 1, stages), false);
    (party.client, Local::new(party.stages))
}

fn encode(client: &ClientModel, link: &mut Local, batch: usize) -> (Tensor, ClientCost) {
    let table = ItemTable::new(Arc::new(texts()), batch);
    let stages = link.stages.len();
    block_on(encode_table(client, link, &table, stages, Device::Cpu)).expect("shapes agree")
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn a_row_is_the_state_of_the_items_own_first_token_whatever_is_encoded_beside_it() {
    let (client, mut link) = party(&[(1, 3)]);
    let (table_vd, _) = encode(&client, &mut link, 7);
    assert_eq!(table_vd.size(), [i64::from(ITEMS), 16]);
    let texts = texts();
    for item in 0..ITEMS {
        let inputs = Inputs::Texts(EncoderInputs::new(&[texts.item(ItemId(item))], Device::Cpu));
        let ends = no_grad(|| client.ends());
        let hidden = client.evaluate_front(&ends, &inputs);
        let hidden = link.stages[0].evaluate(&hidden).expect("shapes agree");
        let alone = client.last_hidden(&hidden, &Tensor::from_slice(&[0i64])).expect("as well");
        let difference =
            largest_difference(&unit_rows(&alone), &table_vd.narrow(0, item.into(), 1));
        assert!(difference < 1e-5, "item {item}: {difference}");
    }
    assert!(!table_vd.requires_grad());
}

#[test]
fn its_traffic_is_known_before_and_counted() {
    for stages in [vec![(1, 3)], vec![(1, 2), (2, 3)]] {
        for batch in [1, 7, 100] {
            let (client, mut link) = party(&stages);
            let (_, cost) = encode(&client, &mut link, batch);
            let planned = ItemTable::new(Arc::new(texts()), batch).traffic(stages.len(), 16 * 4);
            assert_eq!(cost.bytes_up + cost.bytes_down, planned, "{stages:?} by {batch}");
            assert_eq!(cost.bytes_up, cost.bytes_down);
            assert_eq!(link.signs_of_work, (ITEMS as usize).div_ceil(batch));
        }
    }
}

/// Similar lengths together: what is padded is little.
#[test]
fn items_of_similar_length_are_encoded_together() {
    let (client, mut link) = party(&[(1, 3)]);
    let _table = encode(&client, &mut link, recformer().table_batch as usize);
    let mut longest_before = 0;
    for (width, lengths) in &link.evaluated {
        assert_eq!(lengths.iter().max(), Some(width));
        assert!(lengths.iter().all(|length| *length >= longest_before));
        longest_before = *width;
    }
}

fn local_work(epochs: u32, table: Option<Arc<ItemTable>>) -> LocalWork {
    let sets = vec![format!("training.local_epochs={epochs}"), "training.batch=4".to_owned()];
    let config = Loaded::load(&Layers { sets, ..Layers::default() }).expect("legal").config;
    LocalWork {
        run_seed: SEED,
        client: ClientId(0),
        round: Round(0),
        training: config.training,
        optimizer: optimizer(),
        stages: 1,
        device: Device::Cpu,
        table,
    }
}

fn examples() -> TextExamples {
    let user = |user: u32| UserSplit {
        user: UserId(u64::from(user)),
        train: (0..3 + user % 4).map(|n| ItemId((user * 7 + n * 11) % ITEMS)).collect(),
        validation: Vec::new(),
        test: Vec::new(),
    };
    let data = ClientData { client: ClientId(0), users: (0..10).map(user).collect() };
    TextExamples::among(&data, &TrainingRows::All, Arc::new(texts()))
}

/// Trains a local round of three epochs against the table of its start; returns how often a table was
/// encoded meanwhile, the cost, and the digest of the front.
fn train(table: Option<ItemTable>) -> (usize, ClientCost, String) {
    let (mut client, mut link) = party(&[(1, 3)]);
    let (start_vd, _) = encode(&client, &mut link, 7);
    client.set_candidates(start_vd);
    link.evaluated.clear();
    let work = local_work(3, table.map(Arc::new));
    let (_, cost) = block_on(local_round(&mut client, &examples(), &mut link, &work)).expect("ok");
    let front = client.close().0.into_parts().0.digest().to_string();
    (link.evaluated.len(), cost, front)
}

/// Stage 1 of training: the first epoch has the table of the round's start, every other its own.
#[test]
fn an_epoch_begins_with_the_table_of_the_model_as_it_is_unless_the_table_stays() {
    let table = || ItemTable::new(Arc::new(texts()), 7);
    let (batches, moving, front) = train(Some(table()));
    let a_table = (ITEMS as usize).div_ceil(7);
    assert_eq!(batches, 2 * a_table);
    let (batches, staying, other_front) = train(None);
    assert_eq!(batches, 0);
    assert_ne!(front, other_front, "the table matters");
    let bytes = |cost: &ClientCost| cost.bytes_up + cost.bytes_down;
    assert_eq!(bytes(&moving) - bytes(&staying), 2 * table().traffic(1, 16 * 4));
    assert_eq!(train(Some(table())).2, front, "and can be made again");
}

/// The target is not the first item, its history is what precedes it, and nothing of it is in the text.
#[test]
fn an_example_is_the_text_of_what_precedes_its_target() {
    let (examples, texts) = (examples(), texts());
    let mut rng = fellrec::seed::rng(SEED, "test rows", &[]);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        // User 3 has six items.
        let batch = examples.batch(&[3], &mut rng, Device::Cpu);
        let history: Vec<ItemId> = (0..6).map(|n| ItemId((21 + n * 11) % ITEMS)).collect();
        let label = ItemId(batch.labels_m.int64_value(&[0]) as u32);
        let target = history.iter().position(|item| *item == label).expect("one of the user's");
        let text = texts.history(&history[..target]);
        assert_eq!(Vec::<i64>::try_from(batch.inputs.ids().view([-1])).expect("ids"), text.ids);
        assert_eq!(batch.rows_m.int64_value(&[0]), 0);
        seen.insert(target);
    }
    assert_eq!(seen, (1..6).collect());
}

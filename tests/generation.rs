//! Claims (method.md 6.1, protocol.md 5): texts written over the cut are those written without it, in
//! batches of whatever size, with caches or without, and whoever drops a cache on the way.

mod common;

use std::num::NonZeroU32;

use common::link::LocalLink;
use common::{Ends, Party, SEED, split};
use fellrec::config::{GenerationConfig, OrNone, SplitConfig, Trainable};
use fellrec::generation::{BeamSearch, GenerationPlan, Hypothesis, embed, generate};
use fellrec::model::backbone::Inputs;
use fellrec::seed;
use fellrec::split::{ClientModel, SplitError};
use fellrec::training::BodyLink;
use rand::Rng;
use tch::{Device, Kind, Tensor};

const END: [u32; 5] = [2, 7, 11, 19, 23];

fn plan(batch: usize, stages: usize) -> GenerationPlan {
    let number = |value| NonZeroU32::new(value).expect("above 0");
    let search =
        GenerationConfig { beams: number(3), max_new_tokens: number(6), length_penalty: 1.0 };
    GenerationPlan { search, end: END.to_vec(), batch, stages, device: Device::Cpu }
}

fn prompts() -> Vec<Vec<u32>> {
    let mut rng = seed::rng(SEED, "test prompts", &[]);
    let lengths = [5, 1, 9, 4, 4, 12, 2];
    lengths.map(|n| (0..n).map(|_| rng.random_range(0..30)).collect()).to_vec()
}

/// Weights far from their start, so that beams disagree and texts end at different lengths.
fn client_and_link(cut: &SplitConfig) -> (ClientModel, LocalLink) {
    tch::set_num_threads(1);
    let Party { client, stages, .. } =
        Party::sharpened(Ends::Language { tied: true }, Trainable::Full, cut);
    (client, LocalLink::new(stages))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    actix::System::new().block_on(future)
}

fn written(cut: &SplitConfig, batch: usize, evict_at: Vec<u64>) -> Vec<Vec<Hypothesis>> {
    let (client, mut link) = client_and_link(cut);
    link.evict_at = evict_at;
    let plan = plan(batch, link.stages.len());
    block_on(generate(&client, &mut link, &prompts(), &plan)).expect("legal")
}

fn cut() -> SplitConfig {
    split(1, 1, OrNone::None)
}

#[test]
fn over_any_cut_equals_without_it_bit_for_bit() {
    let whole = written(&split(4, 0, OrNone::None), 3, Vec::new());
    assert!(whole.iter().all(|hypotheses| hypotheses.len() == 3), "three beams for everyone");
    let lengths: Vec<usize> = whole.iter().flatten().map(|text| text.tokens.len()).collect();
    assert!(lengths.iter().any(|length| *length < 6), "some texts end by themselves");
    let cuts = [cut(), split(2, 1, OrNone::None), split(1, 1, OrNone::Some(vec![(1, 2), (2, 3)]))];
    for cut in cuts {
        assert_eq!(written(&cut, 3, Vec::new()), whole, "{cut:?}");
    }
}

/// The same search with every text run anew at every step: no caches anywhere.
async fn without_caches(model: &ClientModel, link: &mut LocalLink) -> Vec<Vec<Hypothesis>> {
    let plan = plan(1, link.stages.len());
    let mut found = Vec::new();
    for prompt in prompts() {
        let mut search = BeamSearch::new(1, &plan.end, &plan.search);
        let mut texts = vec![prompt];
        loop {
            let width = texts[0].len() as i64;
            let ids: Vec<i64> = texts.iter().flatten().map(|id| i64::from(*id)).collect();
            let ids_bt = Tensor::from_slice(&ids).view([-1, width]);
            let ends = model.ends();
            let mut hidden = model.evaluate_front(&ends, &Inputs::Ids(ids_bt));
            for stage in 0..plan.stages {
                hidden = link.evaluate(stage, hidden).await.expect("legal").value;
            }
            let rows = Tensor::arange(texts.len() as i64, (Kind::Int64, Device::Cpu));
            let last = (rows + 1) * width - 1;
            let scores = model.evaluate_back(&ends, &hidden, &last).expect("legal");
            let Some(step) = search.advance(&scores.log_softmax(-1, Kind::Float)) else { break };
            let text = |(parent, token): (&i64, &i64)| {
                [&texts[*parent as usize][..], &[*token as u32]].concat()
            };
            texts = step.parents.iter().zip(&step.tokens).map(text).collect();
        }
        found.extend(search.finish());
    }
    found
}

fn assert_close(left: &[Vec<Hypothesis>], right: &[Vec<Hypothesis>]) {
    for (left, right) in left.iter().flatten().zip(right.iter().flatten()) {
        assert_eq!(left.tokens, right.tokens);
        assert!((left.score - right.score).abs() < 1e-4, "{left:?} {right:?}");
    }
    assert_eq!(left.len(), right.len());
}

#[test]
fn caches_and_batches_change_no_text() {
    let (client, mut link) = client_and_link(&cut());
    let reference = block_on(without_caches(&client, &mut link));
    for batch in [1, 3, 100] {
        assert_close(&written(&cut(), batch, Vec::new()), &reference);
    }
}

#[test]
fn a_batch_whose_cache_was_dropped_starts_over() {
    let calm = written(&cut(), 3, Vec::new());
    for evict_at in [vec![1], vec![3, 4, 12], vec![2, 5, 8]] {
        assert_eq!(written(&cut(), 3, evict_at.clone()), calm, "dropped at {evict_at:?}");
    }
    let (client, mut link) = client_and_link(&cut());
    link.evict_at = (0..100).collect();
    let plan = plan(3, 1);
    let refused = block_on(generate(&client, &mut link, &prompts(), &plan));
    assert!(matches!(refused, Err(SplitError::CacheLost { times: 5 })), "{refused:?}");
}

#[test]
fn an_embedding_is_the_last_state_of_its_text_whatever_it_is_computed_with() {
    let texts = prompts();
    let (client, mut link) = client_and_link(&cut());
    let plan = |batch| plan(batch, 1);
    let alone = block_on(embed(&client, &mut link, &texts, &plan(1))).expect("legal");
    assert_eq!(alone.size(), [texts.len() as i64, 16]);
    for batch in [2, 100] {
        let together = block_on(embed(&client, &mut link, &texts, &plan(batch))).expect("legal");
        let difference = (&alone - together).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "batches of {batch}: {difference}");
    }
    // A longer text has the same last state only by accident.
    let longer: Vec<Vec<u32>> = texts.iter().map(|text| [&text[..], &[3]].concat()).collect();
    let other = block_on(embed(&client, &mut link, &longer, &plan(2))).expect("legal");
    assert!((alone - other).abs().max().double_value(&[]) > 1e-2);
    let none = block_on(embed(&client, &mut link, &[], &plan(2))).expect("legal");
    assert_eq!(none.size(), [0, 16]);
}

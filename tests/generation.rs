//! Claims (method.md 6.1, protocol.md 5): texts written over the cut are those written without it, in
//! batches of whatever size, with caches or without, and whoever drops a cache on the way.

mod common;

use std::num::NonZeroU32;

use common::link::{LocalLink, without_caches};
use common::{Ends, Party, SEED, split};
use fellrec::config::{GenerationConfig, OrNone, SplitConfig, Trainable};
use fellrec::generation::{GenerationPlan, Hypothesis, embed, generate};
use fellrec::seed;
use fellrec::split::{ClientModel, SplitError};
use rand::Rng;
use tch::Device;

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
    let reference =
        block_on(without_caches(&client, &mut link, &prompts(), &plan(1, 1))).expect("legal");
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

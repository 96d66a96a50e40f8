//! Beam search on toy models: against greedy search, all texts, and the published procedure written densely.

use std::num::NonZeroU32;

use fellrec::config::GenerationConfig;
use fellrec::generation::{BeamSearch, Hypothesis};
use fellrec::seed;
use proptest::prelude::*;
use rand::Rng;
use tch::{Kind, Tensor};

/// A model of `vocab` tokens: random log-probabilities after every prefix, unrelated ones for
/// every user.
#[derive(Clone, Copy)]
struct Toy {
    vocab: usize,
    seed: u64,
}

impl Toy {
    fn after(self, user: usize, prefix: &[u32]) -> Vec<f32> {
        let prefix = prefix.iter().map(|token| u64::from(*token));
        let parts: Vec<u64> = [user as u64].into_iter().chain(prefix).collect();
        let mut rng = seed::rng(self.seed, "toy model", &parts);
        let logits: Vec<f32> = (0..self.vocab).map(|_| rng.random_range(-3.0..3.0_f32)).collect();
        let log_probs = Tensor::from_slice(&logits).log_softmax(0, Kind::Float);
        Vec::try_from(log_probs).expect("floats")
    }
}

fn config(beams: u32, max_new_tokens: u32, length_penalty: f64) -> GenerationConfig {
    let number = |value| NonZeroU32::new(value).expect("above 0");
    let (beams, max_new_tokens) = (number(beams), number(max_new_tokens));
    GenerationConfig { beams, max_new_tokens, length_penalty }
}

/// Searches for `users`, and counts the rows computed for them. What a row has read is known only by
/// the steps' parents, as of a cache.
fn search<M: Fn(usize, &[u32]) -> Vec<f32>>(
    users: &[usize],
    model: M,
    end: &[u32],
    config: &GenerationConfig,
) -> (Vec<Vec<Hypothesis>>, usize) {
    let mut search = BeamSearch::new(users.len(), end, config);
    let mut rows: Vec<(usize, Vec<u32>)> = users.iter().map(|user| (*user, vec![])).collect();
    let mut computed = 0;
    loop {
        assert_eq!(rows.len(), search.rows());
        computed += rows.len();
        let of_row = |(user, prefix): &(usize, Vec<u32>)| model(*user, prefix);
        let log_probs: Vec<f32> = rows.iter().flat_map(of_row).collect();
        let log_probs = Tensor::from_slice(&log_probs).view([rows.len() as i64, -1]);
        let Some(step) = search.advance(&log_probs) else { break };
        let grown = |(parent, token): (&i64, &i64)| {
            let (user, prefix) = &rows[*parent as usize];
            (*user, [&prefix[..], &[*token as u32]].concat())
        };
        rows = step.parents.iter().zip(&step.tokens).map(grown).collect();
    }
    (search.finish(), computed)
}

/// Sum of the log-probabilities, in the order in which a search adds them.
fn sum(toy: Toy, user: usize, tokens: &[u32]) -> f32 {
    let of_token = |at: usize| toy.after(user, &tokens[..at])[tokens[at] as usize];
    (0..tokens.len()).map(of_token).fold(0.0, |sum, log_prob| sum + log_prob)
}

/// The published procedure for one prompt, densely: absent beams and texts score -1e9.
fn dense(toy: Toy, end: u32, config: &GenerationConfig) -> Vec<Vec<u32>> {
    const ABSENT: f32 = -1e9;
    let (beams, max) = (config.beams.get() as usize, config.max_new_tokens.get() as usize);
    let mut running = vec![(Vec::new(), ABSENT); beams];
    running[0].1 = 0.0;
    let mut finished = vec![(Vec::new(), ABSENT, false); beams];
    for length in 1..=max {
        let power = (length as f64).powf(config.length_penalty) as f32;
        let mut candidates = Vec::new();
        for (tokens, score) in &running {
            for (token, log_prob) in (0..).zip(toy.after(0, tokens)) {
                candidates.push(([&tokens[..], &[token]].concat(), score + log_prob));
            }
        }
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        candidates.truncate(2 * beams);
        let ends = |tokens: &Vec<u32>| length == max || tokens.last() == Some(&end);
        for (place, (tokens, score)) in candidates.iter().enumerate() {
            let counts = ends(tokens) && place < beams;
            let score = if counts { score / power } else { ABSENT };
            finished.push((tokens.clone(), score, counts));
        }
        finished.sort_by(|a, b| b.1.total_cmp(&a.1));
        finished.truncate(beams);
        candidates.retain(|(tokens, _)| !ends(tokens));
        running = candidates.into_iter().take(beams).collect();
        let Some((_, best)) = running.first() else { break };
        let worst = finished.iter().map(|(_, score, _)| *score).fold(f32::MAX, f32::min);
        let improvable =
            finished.iter().any(|(_, _, is)| best / power > if *is { worst } else { ABSENT });
        if !improvable {
            break;
        }
    }
    finished.into_iter().filter(|(_, _, is)| *is).map(|(tokens, _, _)| tokens).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_beam_is_greedy(seed in any::<u64>(), max in 1..9_u32, penalty in -1.0..2.0_f64) {
        let toy = Toy { vocab: 5, seed };
        let (found, _) = search(&[0], |user, prefix| toy.after(user, prefix), &[0], &config(1, max, penalty));
        let mut greedy = Vec::new();
        while greedy.len() < max as usize && greedy.last() != Some(&0) {
            let next = toy.after(0, &greedy);
            let best = (0..5).max_by(|a, b| next[*a].total_cmp(&next[*b])).expect("five");
            greedy.push(best as u32);
        }
        let score = sum(toy, 0, &greedy) / (greedy.len() as f64).powf(penalty) as f32;
        prop_assert_eq!(&found, &vec![vec![Hypothesis { tokens: greedy, score }]]);
    }

    /// With room for every text nothing is pruned: all texts, best first.
    #[test]
    fn enough_beams_are_exhaustive(seed in any::<u64>(), max in 1..4_u32, penalty in -1.0..2.0_f64) {
        let toy = Toy { vocab: 3, seed };
        let beams = 3_u32.pow(max);
        let (found, _) = search(&[0], |user, prefix| toy.after(user, prefix), &[2], &config(beams, max, penalty));
        let mut texts = vec![Vec::new()];
        for _ in 0..max {
            let (whole, open): (Vec<_>, Vec<_>) = texts.into_iter().partition(|text: &Vec<u32>| text.last() == Some(&2));
            let grown = open.iter().flat_map(|text| (0..3).map(|token| [&text[..], &[token]].concat()));
            texts = whole.into_iter().chain(grown).collect();
        }
        let mut all: Vec<Hypothesis> = texts.into_iter().map(|tokens| {
            let score = sum(toy, 0, &tokens) / (tokens.len() as f64).powf(penalty) as f32;
            Hypothesis { tokens, score }
        }).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        prop_assert_eq!(&found[0], &all);
    }

    #[test]
    fn equals_the_dense_procedure(seed in any::<u64>(), beams in 1..5_u32, max in 1..9_u32, penalty in -1.0..2.0_f64) {
        let (toy, config) = (Toy { vocab: 9, seed }, config(beams, max, penalty));
        let (found, _) = search(&[0], |user, prefix| toy.after(user, prefix), &[4], &config);
        let found: Vec<Vec<u32>> = found.concat().into_iter().map(|text| text.tokens).collect();
        prop_assert_eq!(found, dense(toy, 4, &config));
    }

    /// Users neither disturb each other nor cost anything once they are done.
    #[test]
    fn a_batch_is_its_users_one_by_one(seed in any::<u64>(), beams in 1..4_u32, max in 1..7_u32) {
        let (toy, config) = (Toy { vocab: 6, seed }, config(beams, max, 1.0));
        let model = |user: usize, prefix: &[u32]| toy.after(user, prefix);
        let (batch, computed) = search(&[3, 1, 4, 2], model, &[0, 5], &config);
        let alone: Vec<_> = [3, 1, 4, 2].map(|user| search(&[user], model, &[0, 5], &config)).into();
        prop_assert_eq!(computed, alone.iter().map(|(_, computed)| computed).sum::<usize>());
        prop_assert_eq!(batch, alone.into_iter().flat_map(|(found, _)| found).collect::<Vec<_>>());
    }
}

/// Token 0 ends. Ending at once has probability 0.5; else token 1 follows, and then the end for sure.
fn short_or_long(_user: usize, prefix: &[u32]) -> Vec<f32> {
    match prefix {
        [] => vec![0.5_f32.ln(), 0.4_f32.ln(), 0.1_f32.ln()],
        _ => vec![0.0, f32::NEG_INFINITY, f32::NEG_INFINITY],
    }
}

#[test]
fn the_length_penalty_decides_between_short_and_long() {
    let best = |penalty| {
        let (found, _) = search(&[0], short_or_long, &[0], &config(2, 4, penalty));
        found[0][0].clone()
    };
    assert_eq!(best(0.0), Hypothesis { tokens: vec![0], score: 0.5_f32.ln() });
    assert_eq!(best(1.0), Hypothesis { tokens: vec![1, 0], score: 0.4_f32.ln() / 2.0 });
}

#[test]
fn a_search_stops_when_nothing_open_can_win_and_without_an_end_at_the_longest() {
    // [0] and [1, 0] finish in two steps; [2, ...] scores less and is not gone on with.
    let (_, computed) = search(&[0], short_or_long, &[0], &config(2, 50, 0.0));
    assert_eq!(computed, 1 + 2);
    let (found, _) = search(&[0], short_or_long, &[], &config(2, 3, 1.0));
    let texts: Vec<&[u32]> = found[0].iter().map(|text| &text.tokens[..]).collect();
    assert_eq!(texts, [&[0, 0, 0][..], &[1, 0, 0]]);
}

#[test]
fn equal_scores_go_to_the_smaller_parent_then_token() {
    let flat = |_: usize, _: &[u32]| vec![0.25_f32.ln(); 4];
    let (found, _) = search(&[0], flat, &[], &config(3, 2, 1.0));
    let texts: Vec<&[u32]> = found[0].iter().map(|text| &text.tokens[..]).collect();
    assert_eq!(texts, [&[0, 0][..], &[0, 1], &[0, 2]]);
}

#[test]
fn a_model_without_probabilities_ends_the_search_of_its_user_only() {
    let model = |user: usize, prefix: &[u32]| {
        if user == 0 { vec![f32::NAN; 3] } else { short_or_long(user, prefix) }
    };
    let (found, _) = search(&[0, 1], model, &[0], &config(2, 4, 1.0));
    assert_eq!((found[0].len(), found[1].len()), (0, 2));
    assert_eq!(BeamSearch::new(0, &[0], &config(2, 4, 1.0)).rows(), 0);
}

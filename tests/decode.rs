//! Claims (protocol.md 5): decoding with caches on both sides of the cut equals decoding without a
//! cut, and running every text anew; a repeated turn changes nothing; caches stay within their bound.

mod common;

use common::{Ends, Party, SEED, split};
use fellrec::config::{OrNone, SplitConfig, Trainable};
use fellrec::ids::ClientId;
use fellrec::model::backbone::Inputs;
use fellrec::seed;
use fellrec::split::{
    BodyDecoding, DecodeCache, DecodePool, DecodeTurn, HiddenStates, SplitError, Turn,
};
use rand::Rng;
use tch::{Device, Kind, Tensor};

const VOCAB: i64 = 30;
/// Written tokens of every scripted decoding.
const WRITTEN: usize = 5;

/// Prompts and what is written after them: who continues whom, with which token.
struct Script {
    prompts: Vec<Vec<i64>>,
    turns: Vec<(Vec<i64>, Vec<i64>)>,
}

impl Script {
    /// Prompts of these lengths; rows are re-ordered, doubled and dropped on the way.
    fn new(lengths: &[usize], seed_part: u64) -> Self {
        let mut rng = seed::rng(SEED, "decode script", &[seed_part]);
        let mut token = || rng.random_range(0..VOCAB);
        let prompts = lengths.iter().map(|n| (0..*n).map(|_| token()).collect()).collect();
        let mut rows = lengths.len() as i64;
        let mut rng = seed::rng(SEED, "decode parents", &[seed_part]);
        let mut turns = Vec::new();
        for turn in 0..WRITTEN {
            let next = [2 * rows, rows + 1, rows, rows.max(2) - 1, rows][turn];
            let parents: Vec<i64> = (0..next).map(|_| rng.random_range(0..rows)).collect();
            let tokens = (0..next).map(|_| rng.random_range(0..VOCAB)).collect();
            turns.push((parents, tokens));
            rows = next;
        }
        Self { prompts, turns }
    }

    /// The whole text of every row after `turns` turns.
    fn texts(&self, turns: usize) -> Vec<Vec<i64>> {
        self.turns[..turns].iter().fold(self.prompts.clone(), |texts, (parents, tokens)| {
            let text =
                |(parent, token): (&i64, &i64)| [&texts[*parent as usize][..], &[*token]].concat();
            parents.iter().zip(tokens).map(text).collect()
        })
    }
}

fn padded(texts: &[Vec<i64>]) -> (Tensor, Tensor) {
    let width = texts.iter().map(Vec::len).max().unwrap_or(0);
    let rows: Vec<i64> = texts
        .iter()
        .flat_map(|text| text.iter().copied().chain(std::iter::repeat_n(0, width - text.len())))
        .collect();
    let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
    let ids_bt = Tensor::from_slice(&rows).view([texts.len() as i64, width as i64]);
    (ids_bt, Tensor::from_slice(&lengths))
}

fn party(split: &SplitConfig) -> Party {
    tch::set_num_threads(1);
    Party::new(Ends::Language { tied: true }, Trainable::Full, split, false)
}

/// Both sides of a decoding, all in this thread.
struct Decoding {
    party: Party,
    front: Option<DecodeCache>,
    bodies: Vec<Option<BodyDecoding>>,
    back: Option<DecodeCache>,
}

impl Decoding {
    fn new(party: Party) -> Self {
        let bodies = party.stages.iter().map(|_| None).collect();
        Self { party, front: None, bodies, back: None }
    }

    fn turn(&mut self, tokens_bt: &Tensor, turn: Turn<'_>, wire: &DecodeTurn) -> Tensor {
        let client = &self.party.client;
        let ends = client.ends();
        let mut hidden =
            client.decode_front(&ends, tokens_bt, &turn, &mut self.front).expect("legal");
        for (stage, held) in self.party.stages.iter().zip(&mut self.bodies) {
            hidden = stage.decode(held, wire, &hidden).expect("legal").expect("held");
            let repeated = stage.decode(held, wire, &hidden).expect("legal").expect("held");
            assert_eq!(repeated.tensor(), hidden.tensor(), "a repeated turn is answered as before");
        }
        client.decode_back(&ends, &hidden, &turn, &mut self.back).expect("legal")
    }

    /// Log-probabilities after the prompts and after every turn.
    fn run(&mut self, script: &Script) -> Vec<Tensor> {
        let (ids_bt, lengths_b) = padded(&script.prompts);
        let wire = |position, parents: &[i64]| DecodeTurn {
            decoding: 1,
            position,
            parents: parents.to_vec(),
        };
        let prompts = Turn::Prompts { lengths_b: &lengths_b };
        let mut answers = vec![self.turn(&ids_bt, prompts, &wire(0, &[]))];
        for (position, (parents, tokens)) in (1..).zip(&script.turns) {
            let tokens_b1 = Tensor::from_slice(tokens).unsqueeze(1);
            let turn = Turn::Tokens { parents };
            answers.push(self.turn(&tokens_b1, turn, &wire(position, parents)));
        }
        answers
    }
}

/// Every text run anew, without caches.
fn anew(party: &Party, texts: &[Vec<i64>]) -> Tensor {
    let (ids_bt, lengths_b) = padded(texts);
    let ends = party.client.ends();
    let mut hidden = party.client.evaluate_front(&ends, &Inputs::Ids(ids_bt.shallow_clone()));
    for stage in &party.stages {
        hidden = stage.evaluate(&hidden).expect("legal");
    }
    let width = ids_bt.size()[1];
    let rows = Tensor::arange(lengths_b.size()[0], (Kind::Int64, Device::Cpu)) * width;
    let scores = party.client.evaluate_back(&ends, &hidden, &(rows + lengths_b - 1));
    scores.expect("legal").log_softmax(-1, Kind::Float)
}

fn whole() -> SplitConfig {
    split(4, 0, OrNone::None)
}

#[test]
fn over_the_cut_equals_without_it_bit_for_bit() {
    let cuts = [
        split(1, 1, OrNone::None),
        split(1, 0, OrNone::None),
        split(2, 2, OrNone::None),
        split(1, 1, OrNone::Some(vec![(1, 2), (2, 3)])),
    ];
    for (number, lengths) in [&[7, 7, 7][..], &[9, 3, 6, 1][..]].into_iter().enumerate() {
        let script = Script::new(lengths, number as u64);
        let expected = Decoding::new(party(&whole())).run(&script);
        for cut in &cuts {
            assert_eq!(Decoding::new(party(cut)).run(&script), expected, "cut {cut:?}");
        }
    }
}

#[test]
fn caches_equal_running_every_text_anew() {
    for (number, lengths) in [&[5, 5][..], &[9, 3, 6, 1][..], &[1][..]].into_iter().enumerate() {
        let script = Script::new(lengths, 10 + number as u64);
        let cut = split(1, 1, OrNone::None);
        let answers = Decoding::new(party(&cut)).run(&script);
        let reference = party(&cut);
        for (turns, answer) in answers.iter().enumerate() {
            let expected = anew(&reference, &script.texts(turns));
            let difference = (answer - expected).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "turn {turns} of prompts {lengths:?}: {difference}");
        }
    }
}

fn prompts(party: &Party, lengths: &[usize]) -> HiddenStates {
    let (ids_bt, lengths_b) = padded(&Script::new(lengths, 20).prompts);
    let hidden = party.client.evaluate_front(&party.client.ends(), &Inputs::Ids(ids_bt));
    hidden.with_lengths(Some(&lengths_b))
}

fn first_turn() -> DecodeTurn {
    DecodeTurn { decoding: 3, position: 0, parents: Vec::new() }
}

fn second_turn(parents: &[i64]) -> DecodeTurn {
    DecodeTurn { decoding: 3, position: 1, parents: parents.to_vec() }
}

#[test]
fn what_a_shard_does_not_hold_is_told_and_nonsense_is_refused() {
    let party = party(&split(1, 1, OrNone::None));
    let stage = &party.stages[0];
    let token = HiddenStates::new(&Tensor::zeros([2, 1, 16], (Kind::Float, Device::Cpu)));
    let mut held = None;
    let answer = stage.decode(&mut held, &second_turn(&[0, 0]), &token).expect("legal");
    assert!(answer.is_none(), "nothing came before");

    let start = prompts(&party, &[4, 2]);
    stage.decode(&mut held, &first_turn(), &start).expect("legal").expect("answered");
    let other = DecodeTurn { decoding: 4, ..second_turn(&[0, 1]) };
    assert!(stage.decode(&mut held, &other, &token).expect("legal").is_none(), "another decoding");
    for parents in [&[0, 2][..], &[-1, 0], &[0], &[0, 0, 0]] {
        let refused = stage.decode(&mut held, &second_turn(parents), &token);
        assert!(matches!(refused, Err(SplitError::Parents { .. })), "{parents:?}: {refused:?}");
    }
    let bare = HiddenStates::new(start.tensor());
    let refused = stage.decode(&mut None, &first_turn(), &bare);
    assert!(matches!(refused, Err(SplitError::NoLengths)), "{refused:?}");
    let lengths = Tensor::from_slice(&[5i64, 2]);
    let long = HiddenStates::new(start.tensor()).with_lengths(Some(&lengths));
    let refused = stage.decode(&mut None, &first_turn(), &long);
    assert!(matches!(refused, Err(SplitError::Lengths { .. })), "{refused:?}");
    let answer = stage.decode(&mut held, &second_turn(&[1, 1]), &token).expect("still legal");
    assert!(answer.is_some(), "what was refused did no harm");
}

#[test]
fn a_pool_keeps_the_newest_within_its_bound() {
    let party = party(&split(1, 1, OrNone::None));
    let stage = &party.stages[0];
    // One stage of 2 blocks, 2 key-value heads of 4: 2 * 2 * 2 * 4 floats a column.
    let bytes = 2 * 4 * 2 * 2 * 2 * 4 * 4;
    let mut pool = DecodePool::new(2 * bytes + bytes / 2);
    let start = |pool: &mut DecodePool, client, lengths: &[usize]| {
        let hidden = prompts(&party, lengths);
        pool.turn(ClientId(client), |held| stage.decode(held, &first_turn(), &hidden))
    };
    for client in 0..3 {
        start(&mut pool, client, &[4, 2]).expect("fits").expect("answered");
    }
    assert_eq!(pool.bytes(), 2 * bytes);
    let token = HiddenStates::new(&Tensor::zeros([2, 1, 16], (Kind::Float, Device::Cpu)));
    let go_on = |pool: &mut DecodePool, client| {
        pool.turn(ClientId(client), |held| stage.decode(held, &second_turn(&[0, 1]), &token))
    };
    assert!(go_on(&mut pool, 0).expect("legal").is_none(), "client 0 waited longest");
    assert!(go_on(&mut pool, 1).expect("legal").is_some());
    pool.drop_client(ClientId(1));
    assert_eq!(pool.bytes(), bytes);

    let refused = start(&mut pool, 0, &[9, 9, 9]);
    let Err(SplitError::CacheTooLarge { needed, limit }) = refused else {
        panic!("expected a refusal, got {refused:?}");
    };
    assert!(needed > limit);
    assert!(go_on(&mut pool, 2).expect("legal").is_some(), "the others are not harmed");
}

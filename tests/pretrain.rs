//! Claims about `fellrec pretrain`: a base learns the catalogue's text, depends on nothing else, comes out
//! the same again, and is a folder that runs start from.

mod common;

use std::fs;
use std::path::Path;

use common::federation::{small_config, undisturbed};
use fellrec::config::Config;
use fellrec::data::{self, Catalogue};
use fellrec::model::layout::model_specs;
use fellrec::model::pretrained::{Checkpoint, Family};
use fellrec::model::slice::Digest;
use fellrec::pretrain::{Base, Pretraining};

const SMALL: [&str; 6] = [
    "model.vocab=400",
    "prompt.max_items=3",
    "generation.max_new_tokens=16",
    "pretrain.steps=60",
    "pretrain.batch=8",
    "pretrain.learning_rate=5e-3",
];

fn config(sets: &[&str]) -> Config {
    small_config(&[&SMALL[..], sets].concat())
}

fn catalogue(config: &Config) -> Catalogue {
    data::load(&config.data, config.run.seed).expect("synthetic").dataset.catalogue
}

fn pretraining(config: &Config) -> Pretraining {
    tch::set_num_threads(1);
    Pretraining::new(config.clone(), catalogue(config)).expect("no checkpoint")
}

fn base(sets: &[&str]) -> Base {
    pretraining(&config(sets)).run(|_| ()).expect("enough items")
}

fn written(base: &Base, folder: &Path) -> Checkpoint {
    base.write(folder).expect("a writable folder");
    let checkpoint = Checkpoint::open(folder).expect("a model of transformers");
    checkpoint.check(&model_specs(checkpoint.architecture())).expect("all tensors and no others");
    checkpoint
}

fn digest(base: &Base) -> Digest {
    let folder = tempfile::tempdir().expect("a temporary folder");
    written(base, folder.path()).digest().expect("readable")
}

#[test]
fn a_base_learns_what_it_was_not_shown() {
    for (backbone, family, least) in
        [("bigrec", Family::Llama, 0.5), ("recformer", Family::Longformer, 0.1)]
    {
        let set = format!("model.backbone={backbone}");
        let sets =
            [set.as_str(), "recformer.window=8", "pretrain.steps=150", "pretrain.held_out=0.3"];
        let base = base(&sets);
        let [before, after] = base.record().held_out_loss;
        assert!(base.record().held_out_items > 0);
        assert!(after < before - least, "{backbone}: held-out loss {before} before, {after} after");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let checkpoint = written(&base, folder.path());
        assert_eq!(checkpoint.family(), family);
        assert_eq!(checkpoint.architecture().vocab as u64, base.record().tokens);
        assert!(checkpoint.tokenizer().is_some());
    }
}

#[test]
fn what_it_is_made_from_decides_and_nothing_else() {
    let short = ["model.backbone=bigrec", "pretrain.steps=3"];
    let first = digest(&base(&short));
    assert_eq!(digest(&base(&short)), first, "the same again");
    let key = |sets: &[&str]| pretraining(&config(&[&short[..], sets].concat())).key().clone();
    // Who did what, and how a run would train, is no part of a base.
    let same = ["data.synthetic.users=300", "training.batch=4", "federation.rounds=7"];
    assert_eq!(key(&same), key(&[]));
    for other in ["run.seed=7", "data.synthetic.items=70", "model.hidden=32", "pretrain.batch=9"] {
        assert_ne!(key(&[other]), key(&[]), "{other}");
    }
    let seeded = [&short[..], &["run.seed=7"]].concat();
    assert_ne!(digest(&base(&seeded)), first);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let all = config(&["model.backbone=bigrec", "pretrain.held_out=0.99"]);
    let refused = pretraining(&all).run(|_| ()).err().expect("too few items").to_string();
    assert!(refused.contains("expected at least 4 after pretrain.held_out"), "{refused}");
    let based = config(&["model.checkpoint=somewhere"]);
    let refused = Pretraining::new(based.clone(), catalogue(&based)).err().expect("a base");
    assert!(refused.to_string().starts_with("model.checkpoint: got somewhere"), "{refused}");
}

#[test]
fn federations_of_every_backbone_start_from_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for backbone in ["item-tokens", "bigrec", "recformer"] {
        let backbone_set = format!("model.backbone={backbone}");
        let of_backbone = [backbone_set.as_str(), "recformer.window=8", "pretrain.steps=5"];
        let at = folder.path().join(backbone);
        fs::create_dir(&at).expect("a new folder");
        base(&of_backbone).write(&at).expect("a writable folder");
        let checkpoint = format!("model.checkpoint={}", at.display());
        let run = [
            checkpoint.as_str(),
            "model.trainable=lora",
            "lora.targets=[\"q_proj\"]",
            "federation.rounds=1",
            "generation.beams=2",
            "evaluation.validation_users=4",
        ];
        let sets = match backbone {
            "recformer" => [&of_backbone[..2], &run[..1], &run[3..]].concat(),
            _ => [&of_backbone[..2], &run].concat(),
        };
        let ended = undisturbed(config(&sets));
        assert!(!ended.trace().slices.is_empty(), "{backbone} committed a round");
    }
}

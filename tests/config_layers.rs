//! Configuration layers: order, origins, and the words in which a mistake is refused.

use fellrec::config::{
    Config, ConfigError, DeviceName, Layers, Loaded, Origin, PRESETS, Quorum, keys,
};

fn layers(file: Option<&str>, env: &[(&str, &str)], sets: &[&str]) -> Layers {
    Layers {
        file: file.map(str::to_owned),
        env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        sets: sets.iter().map(|set| set.to_string()).collect(),
        method: None,
    }
}

fn load(sets: &[&str]) -> Result<Loaded, ConfigError> {
    Loaded::load(&layers(None, &[], sets))
}

fn refused(layers: &Layers) -> String {
    Loaded::load(layers).expect_err("should be refused").to_string()
}

/// A configuration file that lives as long as the test.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("my.toml");
    std::fs::write(&path, text).expect("a writable temporary folder");
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn default_alone_and_every_preset_resolve_and_validate() {
    load(&[]).unwrap();
    for preset in PRESETS {
        let loaded = Loaded::load(&layers(Some(preset.name), &[], &[]));
        loaded.unwrap_or_else(|error| panic!("{}: {error}", preset.name));
        assert!(preset.text.starts_with("# "), "{} says what it is for", preset.name);
    }
}

#[test]
fn every_key_is_documented_and_agrees_with_the_structs() {
    let documented = keys();
    for key in &documented {
        assert!(!key.doc.is_empty(), "{} has no comment", key.key);
        assert!(key.key.starts_with(&format!("{}.", key.section)));
    }
    // `deny_unknown_fields` refuses a key without a field; a field without a key is missing. What is
    // left to show is that nothing gets lost on the way: the structs write exactly the documented keys.
    let written: toml_edit::DocumentMut =
        load(&[]).unwrap().config.to_toml().unwrap().parse().unwrap();
    let mut of_structs = leaves(written.as_table(), "");
    let mut of_default: Vec<_> = documented.into_iter().map(|key| key.key).collect();
    of_structs.sort();
    of_default.sort();
    assert_eq!(of_structs, of_default);
}

fn leaves(table: &toml_edit::Table, parent: &str) -> Vec<String> {
    let full = |name: &str| format!("{parent}{name}");
    table
        .iter()
        .flat_map(|(name, item)| match item.as_table() {
            Some(child) => leaves(child, &full(&format!("{name}."))),
            None => vec![full(name)],
        })
        .collect()
}

#[test]
fn later_layers_win_and_origins_say_which() {
    let text = "[model]\nhidden = 32\nlayers = 5\n\n[training]\nbatch = 8\n[run]\nseed = 1\n";
    let (_folder, path) = file(text);
    let env = [("FELLREC__MODEL__LAYERS", "6"), ("FELLREC__RUN__SEED", "2"), ("HOME", "/")];
    let loaded = Loaded::load(&layers(Some(&path), &env, &["run.seed=3"])).unwrap();
    assert_eq!(loaded.config.model.hidden, 32);
    assert_eq!(loaded.config.model.layers, 6);
    assert_eq!(loaded.config.training.batch.get(), 8);
    assert_eq!(loaded.config.run.seed, 3);

    let origin = |key: &str| loaded.origins[key].clone();
    assert_eq!(origin("training.loss_chunk"), Origin::Default);
    assert_eq!(origin("training.batch"), Origin::File { path: path.clone(), line: 6 });
    let variable = "FELLREC__MODEL__LAYERS".to_owned();
    assert_eq!(origin("model.layers"), Origin::Environment { variable });
    assert_eq!(origin("run.seed"), Origin::Argument { argument: "run.seed=3".into() });
    assert_eq!(loaded.origins.len(), keys().len());
}

#[test]
fn values_are_toml_or_else_text() {
    let sets = [
        "data.format=movielens",
        "data.path=/data/my set",
        "federation.quorum=2",
        "mixing.groups=\"separate\"",
        "lora.targets=[\"q_proj\"]",
        "heating.overrides=[{client = 1, alpha = 2}]",
        "heating.tau=1",
        "runtime.shard_device=cuda:1",
        "split.stages=[[1, 2], [2, 3]]",
    ];
    let config = load(&sets).unwrap().config;
    assert_eq!(config.data.path.as_option().unwrap().to_str(), Some("/data/my set"));
    assert!(matches!(config.federation.quorum, Quorum::AtLeast(n) if n.get() == 2));
    assert_eq!(config.heating.overrides[0].alpha, Some(2.0));
    assert_eq!(config.heating.tau.get(), Some(1.0));
    assert_eq!(config.runtime.shard_device, DeviceName::Cuda(1));
    assert_eq!(config.split.stages.as_option().unwrap(), &[(1, 2), (2, 3)]);
    // The last of two wins.
    assert_eq!(load(&["run.seed=1", "run.seed=2"]).unwrap().config.run.seed, 2);
}

#[test]
fn tables_of_overrides_are_one_value() {
    let text = "[[heating.overrides]]\nclient = 0\nbeta = 9.0\n[[heating.overrides]]\nclient = 1\nalpha = 0.1\n";
    let (_folder, path) = file(text);
    let config = Loaded::load(&layers(Some(&path), &[], &[])).unwrap().config;
    assert_eq!(config.heating.overrides.len(), 2);
    assert_eq!(config.heating.overrides[0].beta, Some(9.0));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    let (_folder, path) = file("[run]\nseed = 1\n\n[heating]\nalhpa = 0.5\n");
    let message = refused(&layers(Some(&path), &[], &[]));
    assert_eq!(
        message,
        format!("{path}:5: unknown key `heating.alhpa`, did you mean `heating.alpha`?")
    );
    let message = refused(&layers(None, &[], &["federation.sharpness=2"]));
    assert!(message.ends_with("did you mean `mixing.sharpness`?"), "{message}");
    let message = refused(&layers(None, &[("FELLREC__MODEL__HIDEN", "8")], &[]));
    assert_eq!(
        message,
        "environment FELLREC__MODEL__HIDEN: unknown key `model.hiden`, did you mean `model.hidden`?"
    );
    let message = refused(&layers(None, &[], &["zzz=1"]));
    assert_eq!(message, "--set zzz=1: unknown key `zzz`");
    let message = refused(&layers(None, &[], &["model=1"]));
    assert!(message.contains("`model` is a section") && message.contains("hidden"), "{message}");
    let (_folder, path) = file("[modle]\n");
    assert!(refused(&layers(Some(&path), &[], &[])).contains("unknown key `modle`"));
    let (_folder, path) = file("[model]\n");
    Loaded::load(&layers(Some(&path), &[], &[])).expect("an empty section changes nothing");
}

#[test]
fn wrong_types_name_key_place_got_and_expected() {
    let (_folder, path) = file("[model]\nhidden = 32\nlayers = \"four\"\n");
    let message = refused(&layers(Some(&path), &[], &[]));
    assert_eq!(
        message,
        format!("{path}:3: `model.layers`: invalid type: string \"four\", expected i64")
    );
    let table = [
        ("training.batch=0", "`training.batch`", "expected a nonzero u32"),
        ("model.layers=2.5", "`model.layers`", "floating point `2.5`"),
        ("model.layers=true", "`model.layers`", "boolean `true`"),
        ("runtime.deterministic=\"yes\"", "`runtime.deterministic`", "expected a boolean"),
        ("mixing.rule=average", "`mixing.rule`", "unknown variant `average`"),
        ("evaluation.ks=[1, \"x\"]", "`evaluation.ks[1]`", "expected u32"),
        ("federation.quorum=most", "`federation.quorum`", "a number of clients above 0"),
        ("runtime.client_device=gpu", "`runtime.client_device`", "\"cpu\" or \"cuda:N\""),
        ("training.max_steps=many", "`training.max_steps`", "expected a nonzero u64, or \"none\""),
        ("heating.overrides=[{client = 0, gamma = 1}]", "heating.overrides[0]", "gamma"),
        ("run.seed=-1", "`run.seed`", "integer `-1`"),
    ];
    for (set, key, expected) in table {
        let message = refused(&layers(None, &[], &[set]));
        assert!(message.starts_with(&format!("--set {set}: ")), "{message}");
        assert!(message.contains(key) && message.contains(expected), "{set}: {message}");
    }
}

#[test]
fn bad_files_are_refused_with_the_place() {
    let (_folder, path) = file("[run]\nseed = 1\nout = \n");
    let message = refused(&layers(Some(&path), &[], &[]));
    assert!(message.starts_with(&format!("{path}:3:")), "{message}");
    let message = refused(&layers(Some("ml-2m"), &[], &[]));
    assert!(message.contains("ml-2m") && message.contains("ml-1m"), "{message}");
    assert!(refused(&layers(None, &[], &["run.seed"])).contains("has no `=`"));
    let folder = tempfile::tempdir().unwrap();
    let message = refused(&layers(Some(folder.path().to_str().unwrap()), &[], &[]));
    assert!(message.starts_with("failed to read config file"), "{message}");
}

#[test]
fn a_stored_configuration_reads_back_as_itself() {
    for preset in PRESETS {
        let sets = ["optimizer.learning_rate=0.0003000000000000001", "training.max_steps=7"];
        let config = Loaded::load(&layers(Some(preset.name), &[], &sets)).unwrap().config;
        let text = config.to_toml().unwrap();
        let again = Config::from_toml(&text, "config.toml".as_ref()).unwrap();
        assert_eq!(config, again);
        assert_eq!(config.hash().unwrap(), again.hash().unwrap());
    }
    let missing = Config::from_toml("[run]\nseed = 1\n", "config.toml".as_ref()).unwrap_err();
    assert!(missing.to_string().starts_with("config.toml: "), "{missing}");
}

#[test]
fn the_hash_counts_what_changes_a_result() {
    let hash = |sets: &[&str]| load(sets).unwrap().config.hash().unwrap();
    let base = hash(&[]);
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash(&["run.out=elsewhere", "logging.file=debug"]));
    assert_ne!(base, hash(&["run.seed=43"]));
    assert_ne!(base, hash(&["mixing.sharpness=3.0000000001"]));
}

//! Impossible configurations: each is refused by the key that has to change.

use fellrec::config::{ConfigError, Layers, Loaded};

fn violations(sets: &[&str]) -> Vec<String> {
    let sets = sets.iter().map(|set| set.to_string()).collect();
    match Loaded::load(&Layers { sets, ..Layers::default() }) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { violations }) => {
            violations.iter().map(ToString::to_string).collect()
        }
        Err(other) => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn each_impossible_combination_is_refused_by_key_and_rule() {
    // Settings, the key that the message starts with, words of the rule.
    let table: &[(&[&str], &str, &str)] = &[
        (&["model.kv_heads=3", "model.heads=3"], "model.heads", "divide model.hidden"),
        (&["run.out=\"\""], "run.out", "must name a folder"),
        (&["recformer.window=5"], "recformer.window", "even"),
        (&["recformer.max_tokens=1"], "recformer.max_tokens", "at least 2"),
        (&["recformer.temperature=0"], "recformer.temperature", "above 0"),
        (&["recformer.freeze_table_from=10"], "recformer.freeze_table_from", "federation.rounds"),
        (
            &["model.backbone=recformer", "model.trainable=lora", "lora.targets=[\"gate_proj\"]"],
            "lora.targets",
            "no gate",
        ),
        (&["data.format=movielens"], "data.path", "must name the data folder"),
        (&["data.path=x"], "data.path", "must be \"none\""),
        (&["data.split=given"], "data.split", "sequences"),
        (
            &["data.synthetic.groups=300", "data.synthetic.users=200"],
            "data.synthetic.groups",
            "200",
        ),
        (&["data.synthetic.groups=1", "data.synthetic.odd_group=true"], "data.synthetic.odd", "2"),
        (&["data.synthetic.mean_history=400"], "data.synthetic.mean_history", "below"),
        (&["data.synthetic.mean_history=2"], "data.synthetic.mean_history", "at least 3"),
        (
            &["data.format=table", "data.path=x", "data.table.delimiter=x"],
            "data.table.delim",
            "auto",
        ),
        (
            &["data.format=table", "data.path=x", "data.table.user_column=\"\""],
            "data.table.user_c",
            "name",
        ),
        (
            &["data.format=table", "data.path=x", "data.table.item_column=user"],
            "data.table.item_c",
            "differ",
        ),
        (&["clients.assignment=file"], "clients.file", "must name the file"),
        (&["clients.assignment=attribute"], "clients.attribute", "must name a user attribute"),
        (
            &[
                "clients.assignment=attribute",
                "clients.attribute=age",
                "data.format=table",
                "data.path=x",
            ],
            "data.table.users",
            "users file",
        ),
        (
            &[
                "clients.assignment=attribute",
                "clients.attribute=age",
                "data.format=sequences",
                "data.path=x",
            ],
            "clients.assignment",
            "user attributes",
        ),
        (&["clients.count=1201"], "clients.count", "1200"),
        (&["model.heads=3", "model.kv_heads=3"], "model.heads", "divide model.hidden (64)"),
        (&["model.hidden=12"], "model.heads", "even head width"),
        (&["model.kv_heads=3"], "model.kv_heads", "divide model.heads (4)"),
        (&["model.heads=0"], "model.heads", "at least 1"),
        (&["model.hidden=-64"], "model.hidden", "at least 1"),
        (&["model.rope_theta=0"], "model.rope_theta", "above 0"),
        (&["model.norm_eps=nan"], "model.norm_eps", "finite"),
        (&["model.init_std=inf"], "model.init_std", "finite"),
        (&["model.dropout=1"], "model.dropout", "below 1"),
        (&["model.max_history=0"], "model.max_history", "at least 1"),
        (&["lora.rank=0"], "lora.rank", "at least 1"),
        (&["lora.alpha=-1"], "lora.alpha", "above 0"),
        (&["lora.dropout=-0.1"], "lora.dropout", "at least 0"),
        (&["lora.targets=[]"], "lora.targets", "at least one"),
        (&["lora.targets=[\"q_proj\", \"q_proj\"]"], "lora.targets", "twice"),
        (&["split.k_front=0"], "split.k_front", "embedding would leave the client"),
        (&["split.k_back=-1"], "split.k_back", "at least 0"),
        (
            &["split.k_front=3", "split.k_back=2"],
            "split.k_front",
            "must not exceed model.layers (4)",
        ),
        (&["split.k_front=9223372036854775807"], "split.k_front", "must not exceed"),
        (&["split.replicas=0"], "split.replicas", "at least 1"),
        (&["split.stages=[[1, 2]]"], "split.stages", "[1, 3)"),
        (&["split.stages=[[1, 2], [1, 3]]"], "split.stages", "consecutive"),
        (&["split.stages=[[2, 3], [1, 2]]"], "split.stages", "consecutive"),
        (&["split.stages=[[1, 1], [1, 3]]"], "split.stages", "non-empty"),
        (&["split.stages=[]"], "split.stages", "consecutive"),
        (&["split.k_front=3", "split.stages=[[3, 3]]"], "split.stages", "non-empty"),
        (&["training.batch=65537"], "training.batch", "65536"),
        (&["training.loss_chunk=0"], "training.loss_chunk", "at least 1"),
        (&["training.proximal_mu=-0.1"], "training.proximal_mu", "at least 0"),
        (&["training.proximal_mu=inf"], "training.proximal_mu", "finite"),
        (&["training.ditto_lambda=1"], "training.ditto_lambda", "mixing.rule = \"fedavg\""),
        (&["training.ditto_lambda=0", "mixing.rule=fedavg"], "training.ditto_lambda", "above 0"),
        (
            &["training.ditto_lambda=1", "mixing.rule=fedavg", "mixing.fine_tune_rounds=1"],
            "training.ditto_lambda",
            "fine_tune_rounds = 0",
        ),
        (&["optimizer.learning_rate=0"], "optimizer.learning_rate", "above 0"),
        (&["optimizer.beta1=1"], "optimizer.beta1", "below 1"),
        (&["optimizer.weight_decay=-1"], "optimizer.weight_decay", "at least 0"),
        (&["optimizer.clip_norm=0"], "optimizer.clip_norm", "above 0"),
        (&["prompt.items=\" \""], "prompt.items", "name a word"),
        (&["generation.beams=65537"], "generation.beams", "65536"),
        (&["generation.length_penalty=nan"], "generation.length_penalty", "finite"),
        (&["grounding.gammas=[0.5, 0.1]"], "grounding.gammas", "ascending"),
        (&["grounding.gammas=[-1]"], "grounding.gammas", "at least 0"),
        (&["federation.participation=0"], "federation.participation", "above 0"),
        (&["federation.participation=1.1"], "federation.participation", "at most 1"),
        (&["federation.participation=nan"], "federation.participation", "above 0"),
        (&["federation.quorum=6"], "federation.quorum", "5 of 5 clients"),
        (&["clients.pooled=true", "federation.quorum=2"], "federation.quorum", "1 of 1 clients"),
        (&["federation.quorum=3", "federation.participation=0.4"], "federation.quorum", "2 of 5"),
        (&["mixing.similarity=product"], "mixing.similarity", "lora"),
        (&["mixing.sharpness=0.9"], "mixing.sharpness", "at least 1"),
        (&["mixing.fine_tune_rounds=10"], "mixing.fine_tune_rounds", "federation.rounds (10)"),
        (&["clients.assignment=silos"], "clients.assignment", "reads none"),
        (
            &[
                "clients.assignment=silos",
                "clients.pooled=true",
                "data.format=sequences",
                "data.path=x",
            ],
            "clients.pooled",
            "silos",
        ),
        (
            &[
                "clients.assignment=silos",
                "training.rows=9",
                "data.format=sequences",
                "data.path=x",
            ],
            "training.rows",
            "none",
        ),
        (&["federation.reopen_budget=65536"], "federation.reopen_budget", "65535"),
        (&["mixing.clip_ratio=0"], "mixing.clip_ratio", "above 0"),
        (
            &["mixing.robust=multi-krum", "mixing.byzantine=2"],
            "mixing.byzantine",
            "needs 7 clients",
        ),
        (&["mixing.robust=trimmed-mean", "clients.count=2"], "mixing.byzantine", "needs 3 clients"),
        (&["mixing.temperature=0"], "mixing.temperature", "above 0"),
        (&["heating.alpha=0"], "heating.alpha", "above 0"),
        (&["heating.beta=inf"], "heating.beta", "finite"),
        (&["heating.tau=0"], "heating.tau", "above 0"),
        (&["heating.overrides=[{client = 5, alpha = 1}]"], "heating.overrides[0].client", "(5)"),
        (&["heating.overrides=[{client = 1}]"], "heating.overrides[0]", "alpha, beta or both"),
        (&["heating.overrides=[{client = 1, beta = nan}]"], "heating.overrides[0].beta", "finite"),
        (
            &["heating.overrides=[{client = 1, alpha = 1}, {client = 1, beta = 1}]"],
            "heating.overrides[1]",
            "earlier entry",
        ),
        (&["screening.max_norm_ratio=0.5"], "screening.max_norm_ratio", "at least 1"),
        (&["evaluation.ks=[]"], "evaluation.ks", "ascending"),
        (&["evaluation.ks=[0, 5]"], "evaluation.ks", "above 0"),
        (&["evaluation.ks=[5, 5]"], "evaluation.ks", "ascending"),
        (&["evaluation.batch=100000"], "evaluation.batch", "65536"),
        (&["runtime.dtype=bf16"], "runtime.dtype", "must be f32"),
        (
            &[
                "runtime.clients_at_once=4",
                "runtime.recompute=true",
                "model.trainable=lora",
                "runtime.deterministic=true",
            ],
            "runtime.clients_at_once",
            "depends on time",
        ),
        (
            &["runtime.clients_at_once=4", "runtime.deterministic=false", "model.trainable=lora"],
            "runtime.clients_at_once",
            "runtime.recompute = false",
        ),
        (
            &["runtime.clients_at_once=4", "runtime.deterministic=false", "runtime.recompute=true"],
            "runtime.clients_at_once",
            "share no weights",
        ),
    ];
    for (sets, key, rule) in table {
        let broken = violations(sets);
        assert_eq!(broken.len(), 1, "{sets:?} broke {broken:?}");
        assert!(broken[0].starts_with(key) && broken[0].contains(rule), "{sets:?}: {}", broken[0]);
    }
}

#[test]
fn every_violation_is_reported_at_once_with_value_and_origin() {
    let broken = violations(&["model.kv_heads=3", "split.k_front=0", "optimizer.beta2=2.0"]);
    assert_eq!(broken.len(), 3, "{broken:?}");
    assert_eq!(
        broken[0],
        "model.kv_heads = 3 (--set model.kv_heads=3): must divide model.heads (4)"
    );
}

#[test]
fn the_edges_of_the_legal_are_legal() {
    let table: &[&[&str]] = &[
        // Nothing offloaded.
        &["split.k_front=4", "split.k_back=0"],
        &["split.k_front=4", "split.k_back=0", "split.stages=[]"],
        &["split.k_front=1", "split.k_back=0", "split.stages=[[1, 2], [2, 4]]"],
        &["federation.quorum=5", "clients.count=1", "federation.quorum=1"],
        &["federation.participation=0.01", "federation.quorum=1"],
        &["model.trainable=lora", "runtime.dtype=bf16", "mixing.similarity=product"],
        &["mixing.similarity=product", "mixing.rule=fedavg"],
        &["mixing.fine_tune_rounds=9"],
        &["training.ditto_lambda=1e-300", "mixing.rule=fedavg", "training.proximal_mu=1"],
        &["clients.pooled=true", "clients.assignment=per-user", "federation.quorum=1"],
        &["federation.rounds=0"],
        &["generation.length_penalty=-1", "grounding.gammas=[0, 0.5]"],
        &["mixing.sharpness=1", "model.dropout=0", "evaluation.ks=[1]"],
        // Clients are counted when the data are cut: see `validate_clients`.
        &["clients.assignment=per-user", "federation.quorum=900"],
    ];
    for sets in table {
        assert_eq!(violations(sets), Vec::<String>::new(), "{sets:?}");
    }
}

#[test]
fn rules_on_the_number_of_clients_wait_for_the_data_where_they_must() {
    let sets = ["clients.assignment=per-user", "federation.quorum=900"].map(str::to_owned).to_vec();
    let config = Loaded::load(&Layers { sets, ..Layers::default() }).unwrap().config;
    config.validate_clients(1200).unwrap();
    let message = config.validate_clients(899).unwrap_err().to_string();
    assert!(message.contains("federation.quorum = 900"), "{message}");
}

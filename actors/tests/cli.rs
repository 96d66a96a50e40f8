//! The command line as a user meets it: the built binary, its output and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the binary in `folder`, with no configuration in the environment but `env`.
fn fellrec_in(folder: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fellrec"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FELLREC__") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(args).envs(env.iter().copied());
    command.output().expect("the binary was built with this test")
}

fn fellrec(args: &[&str]) -> Output {
    fellrec_in(Path::new("."), &[], args)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

#[test]
fn help_lists_the_subcommands_and_documents_the_exit_codes() {
    let output = fellrec(&["--help"]);
    assert_eq!(code(&output), Some(0));
    let help = stdout(&output);
    let commands =
        ["simulate", "resume", "bench", "data", "config", "init", "doctor", "completions"];
    for word in commands.into_iter().chain(["Exit codes:", "130", "Examples:"]) {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for command in
        [&["simulate"][..], &["resume"], &["bench", "round"], &["data", "inspect"], &["compare"]]
    {
        let help = stdout(&fellrec(&[command, &["--help"]].concat()));
        assert!(help.contains("Examples:"), "{command:?}: {help}");
    }
}

/// A method is a preset of `simulate`, too: its keys win, and a wrong name is wrong usage.
#[test]
fn a_method_sets_its_keys_above_all_others() {
    let folder = tempfile::tempdir().unwrap();
    let run = |method: &str| {
        let sets = ["--set", "mixing.rule=local", "--set", "data.synthetic.users=40"];
        let tiny = ["--set", "federation.rounds=3", "--set", "data.synthetic.items=30"];
        let out = folder.path().join(method.replace(':', "-"));
        let args = [
            &["simulate", "-q", "--method", method, "--out", out.to_str().unwrap()],
            &sets[..],
            &tiny,
        ];
        let output = fellrec_in(folder.path(), &[], &args.concat());
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        std::fs::read_to_string(out.join("config.toml")).unwrap()
    };
    let config = run("fedavg:training.max_steps=1");
    assert!(config.contains("rule = \"fedavg\"") && config.contains("max_steps = 1"), "{config}");
    let output = fellrec(&["simulate", "--method", "fedavgg", "--dry-run"]);
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("did you mean"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_and_wrong_configuration_exit_with_2_and_say_why_on_stderr() {
    for args in [
        &["simulte"][..],
        &["config", "check", "--set", "model.hiden=3"],
        &["config", "check", "--set", "split.k_front=9"],
        &["config", "check", "--config", "ml-2m"],
        &["config", "check", "--set", "logging.file=[=x"],
        &["config", "keys", "nonsense"],
    ] {
        let output = fellrec(args);
        assert_eq!(code(&output), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let output = fellrec(&["config", "check", "--set", "model.hiden=3"]);
    assert!(stderr(&output).contains("did you mean `model.hidden`?"), "{}", stderr(&output));
}

#[test]
fn config_check_says_ok_for_every_preset() {
    for preset in ["demo", "games", "ml-100k", "ml-1m"] {
        let output = fellrec(&["config", "check", "--config", preset]);
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).starts_with(&format!("ok: preset {preset}, ")));
    }
}

#[test]
fn config_show_resolves_all_layers_with_their_origins() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("my.toml"), "[model]\nhidden = 32\n").unwrap();
    let env = [("FELLREC__TRAINING__BATCH", "8")];
    let args = ["config", "show", "-c", "my.toml", "-s", "run.seed=7", "--json"];
    let output = fellrec_in(folder.path(), &env, &args);
    let entries = json(&output);
    let find = |key: &str| {
        let entries = entries.as_array().unwrap();
        entries.iter().find(|entry| entry["key"] == key).unwrap().clone()
    };
    assert_eq!(find("model.hidden")["value"], 32);
    assert_eq!(find("model.hidden")["origin"]["line"], 2);
    assert_eq!(find("training.batch")["origin"]["variable"], "FELLREC__TRAINING__BATCH");
    assert_eq!(find("run.seed")["origin"]["layer"], "argument");
    assert_eq!(find("heating.alpha")["origin"]["layer"], "default");

    let output = fellrec_in(folder.path(), &env, &["config", "show", "-c", "my.toml", "--changed"]);
    let table = stdout(&output);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains("my.toml:2"), "{table}");
}

#[test]
fn config_keys_documents_a_section_in_words_and_in_json() {
    let output = fellrec(&["config", "keys", "heating"]);
    assert!(stdout(&output).contains("heating.alpha"), "{}", stdout(&output));
    assert!(!stdout(&output).contains("model.hidden"));
    let keys = json(&fellrec(&["config", "keys", "--json"]));
    let all_documented = keys.as_array().unwrap().iter().all(|key| key["doc"] != "");
    assert!(all_documented);
}

#[test]
fn init_writes_a_configuration_that_checks_and_never_overwrites_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    std::fs::write(shop.join("orders.csv"), "customer;sku;date\n1;a;2024-01-01\n").unwrap();
    std::fs::write(shop.join("products.tsv"), "sku\tname\tcategory\na\tLamp\tLight\n").unwrap();
    std::fs::write(shop.join("people.csv"), "customer,region\n1,north\n").unwrap();
    std::fs::write(shop.join("notes.txt"), "no table\n").unwrap();

    let output = fellrec_in(folder.path(), &[], &["init", "shop"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(shop.join("fellrec.toml")).unwrap();
    for line in ["user_column = \"customer\"", "title_column = \"name\"", "one of \"region\""] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let check = fellrec_in(folder.path(), &[], &["config", "check", "-c", "shop/fellrec.toml"]);
    assert_eq!(code(&check), Some(0), "{}", stderr(&check));

    std::fs::write(shop.join("fellrec.toml"), "# mine\n").unwrap();
    let again = fellrec_in(folder.path(), &[], &["init", "shop"]);
    assert_eq!(code(&again), Some(1));
    assert!(stderr(&again).contains("--force overwrites it"), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(shop.join("fellrec.toml")).unwrap(), "# mine\n");
    let forced = fellrec_in(folder.path(), &[], &["init", "shop", "--force"]);
    assert_eq!(code(&forced), Some(0), "{}", stderr(&forced));

    std::fs::remove_file(shop.join("orders.csv")).unwrap();
    let output = fellrec_in(folder.path(), &[], &["init", "shop", "--force"]);
    assert!(stderr(&output).contains("people.csv has customer, region"), "{}", stderr(&output));
}

#[test]
fn data_inspect_shows_the_data_and_the_clients() {
    let small = ["--set", "data.synthetic.users=60", "--set", "clients.count=3"];
    let output = fellrec(&[&["data", "inspect"][..], &small].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("60 users"), "{}", stdout(&output));
    assert!(stdout(&output).contains("client-2"), "{}", stdout(&output));
    let inspection = json(&fellrec(&[&["data", "inspect", "--json"][..], &small].concat()));
    assert_eq!(inspection["clients"].as_array().unwrap().len(), 3);
}

#[test]
fn data_inspect_reads_what_init_described() {
    let folder = tempfile::tempdir().unwrap();
    let rows = ["1,a", "1,b", "1,c", "2,c", "2,b", "2,zz"].join("\n");
    std::fs::write(folder.path().join("seen.csv"), format!("user,film_id\n{rows}\n")).unwrap();
    let films = "film_id,title\na,Alpha\nb,Beta\nc,Gamma\n";
    std::fs::write(folder.path().join("films.csv"), films).unwrap();
    let init = ["init", "--interactions", "seen.csv", "--items", "films.csv"];
    let output = fellrec_in(folder.path(), &[], &init);
    // `film_id` is no name that init knows for an item.
    assert!(stderr(&output).contains("rename it in one"), "{}", stderr(&output));

    for (file, text) in [
        ("seen.csv", format!("user,item\n{rows}\n")),
        ("films.csv", films.replace("film_id", "item")),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    assert_eq!(code(&fellrec_in(folder.path(), &[], &["init"])), Some(0));
    let inspect = ["data", "inspect", "-c", "fellrec.toml", "-s", "clients.assignment=per-user"];
    let output = fellrec_in(folder.path(), &[], &inspect);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("2 users, 5 interactions, 3 items"), "{}", stdout(&output));
    assert!(stdout(&output).contains("noticed: 1 unknown items"), "{}", stdout(&output));

    // Shown, and then refused: the quorum does not fit the clients that the data make.
    let output =
        fellrec_in(folder.path(), &[], &[&inspect[..], &["-s", "federation.quorum=3"]].concat());
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("federation.quorum = 3"), "{}", stderr(&output));
    // More clients than users shows only against the data.
    let output = fellrec_in(folder.path(), &[], &["data", "inspect", "-c", "fellrec.toml"]);
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
}

#[test]
fn compare_lists_its_methods_and_plans_without_running() {
    let folder = tempfile::tempdir().unwrap();
    let list = stdout(&fellrec(&["compare", "--list"]));
    for method in ["local", "fedavg", "fellrec-no-heating", "fellrec+"] {
        assert!(list.contains(method), "{method} is not in\n{list}");
    }
    let args = ["compare", "--methods", "local,fedavg", "--seeds", "1,7", "-o", "s", "--dry-run"];
    let output = fellrec_in(folder.path(), &[], &args);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("2 methods, 2 seeds: 4 runs"), "{}", stdout(&output));
    assert!(!folder.path().join("s").exists());
}

#[test]
fn compare_refuses_what_it_cannot_run_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.toml"), "[mixing]\nrul = \"local\"\n").unwrap();
    for (args, expected) in [
        (&["-m", "fedvag"][..], "unknown method `fedvag`, did you mean `fedavg`?"),
        (&["-m", "local,local"], "method `local` is given twice"),
        (&["-m", "local", "--seeds", "1,2,1"], "seed 1 is given twice"),
        (&["-m", "local", "--seeds", "1,x"], "invalid value 'x' for '--seeds"),
        (&["-m", "local", "--baseline", "fedavg"], "--baseline fedavg is not among the methods"),
        (&["-m", "nowhere.toml"], "no method file at nowhere.toml"),
        (&["-m", "mine.toml"], "method `mine` was refused: mine.toml:2: unknown key `mixing.rul`"),
        (&["-m", "local,fedavg:model.heads=3"], "method `fedavg:model.heads=3` was refused: "),
        (&["-m", "fedavg:model.heads=3"], "model.heads = 3 (method fedavg:model.heads=3, "),
        (&["-m", "local", "--set", "model.hiden=3"], "did you mean `model.hidden`?"),
    ] {
        let output = fellrec_in(folder.path(), &[], &[&["compare", "-o", "s"], args].concat());
        assert_eq!(code(&output), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        assert!(!folder.path().join("s").exists(), "{args:?}");
    }
}

#[test]
fn doctor_names_every_subject_and_fails_on_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let findings = json(&fellrec_in(folder.path(), &[], &["doctor", "--json"]));
    let level = |findings: &Value, subject: &str| {
        let findings = findings.as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["subject"] == subject);
        finding.unwrap_or_else(|| panic!("{subject} is missing"))["level"].clone()
    };
    for subject in ["config", "libtorch", "cuda", "cores", "memory", "disk"] {
        assert_ne!(level(&findings, subject), "error", "{findings}");
    }
    assert_eq!(level(&findings, "libtorch"), "ok", "{findings}");

    let args = ["doctor", "--json", "--set", "runtime.compute_threads=4096"];
    assert_eq!(level(&json(&fellrec_in(folder.path(), &[], &args)), "cores"), "warning");
    let args = ["doctor", "--json", "--set", "runtime.client_device=cuda:999"];
    let output = fellrec_in(folder.path(), &[], &args);
    assert_eq!((level(&json(&output), "cuda"), code(&output)), ("error".into(), Some(1)));
    let output = fellrec_in(folder.path(), &[], &["doctor", "--set", "model.heads=0"]);
    assert_eq!(code(&output), Some(1));
    assert!(stdout(&output).starts_with("error    config    "), "{}", stdout(&output));
    assert!(stdout(&output).contains("-> correct it"), "{}", stdout(&output));
    let output = fellrec_in(folder.path(), &[], &["doctor", "--set", "run.out=/proc/x"]);
    assert!(stdout(&output).contains("cannot write in /proc"), "{}", stdout(&output));
}

#[test]
fn completions_are_written_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = fellrec(&["completions", shell]);
        assert_eq!(code(&output), Some(0));
        assert!(stdout(&output).contains("simulate"));
    }
}

/// The examples of docs/events.md are a log: what is documented can be reported.
#[test]
fn report_writes_the_page_of_a_run_and_prints_its_table() {
    let run = tempfile::tempdir().expect("a folder");
    let lines = include_str!("../../docs/events.md").lines();
    let log: Vec<&str> = lines.filter(|line| line.starts_with("{\"time_ms\"")).collect();
    std::fs::write(run.path().join("events.jsonl"), log.join("\n")).expect("written");
    std::fs::write(run.path().join("config.toml"), "[run]\nseed = 1\n").expect("written");

    let shown = fellrec_in(run.path(), &[], &["report", "."]);
    assert_eq!(code(&shown), Some(0), "{}", stderr(&shown));
    assert!(stdout(&shown).contains("NDCG@10") && stdout(&shown).contains("report.html"));
    assert!(run.path().join("report.html").is_file());

    let answer = json(&fellrec_in(run.path(), &[], &["report", ".", "--json"]));
    assert_eq!(answer["summary"]["clients"], 3);
    assert!(answer["test"]["1"]["after"]["ndcg"]["10"].is_f64(), "{answer}");

    let nothing = fellrec_in(run.path(), &[], &["report", "nowhere"]);
    assert_eq!(code(&nothing), Some(1));
    assert!(stderr(&nothing).contains("nowhere/events.jsonl"), "{}", stderr(&nothing));
}

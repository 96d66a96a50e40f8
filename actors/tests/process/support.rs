//! Runs of the built binary in processes of their own.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use fellrec::history::{EventKind, RunEvent};
use tempfile::TempDir;

/// Five clients with 120 users, a model of three blocks cut 1/1/1, four rounds: about a second.
const SMALL: &str = "
federation = { rounds = 4, reopen_budget = 1 }
data.synthetic = { users = 120, items = 60, mean_history = 12 }
model = { hidden = 16, layers = 3, heads = 2, kv_heads = 2, ffn = 32, vocab = 256, max_history = 12 }
training.batch = 8
runtime.compute_threads = 2
";

/// A model that transformers wrote.
pub fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models").join(model)
}

/// A folder with a small configuration, and at most one run in it.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("small.toml"), SMALL).expect("written");
        Self { folder }
    }

    pub fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    pub fn study(&self) -> PathBuf {
        self.folder.path().join("study")
    }

    /// The binary with these arguments, started.
    pub fn process(&self, args: &[&str]) -> Process {
        Process::new(self.fellrec(args))
    }

    /// The binary, with no configuration in the environment.
    pub fn fellrec(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fellrec"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FELLREC__") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn simulate(&self, args: &[&str]) -> Process {
        let simulate = ["simulate", "--config", "small.toml", "--out", "run"];
        Process::new(self.fellrec(&[&simulate, args].concat()))
    }

    pub fn resume(&self, args: &[&str]) -> Process {
        Process::new(self.fellrec(&[&["resume", "run"], args].concat()))
    }

    /// What the run came to.
    pub fn trace(&self) -> Trace {
        Trace::read(&self.run())
    }

    /// What a run came to whose folder is another one.
    pub fn trace_of(&self, run: &str) -> Trace {
        Trace::read(&self.path(run))
    }

    /// A path within the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// A file of the folder, as text.
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Everything of a run that equal runs must share: no times, no memory.
#[derive(Debug, Default, PartialEq)]
pub struct Trace {
    /// Digest of all slices after every round.
    pub slices: Vec<String>,
    /// Metrics of the final test, as JSON.
    pub test: Option<String>,
}

impl Trace {
    fn read(run: &Path) -> Self {
        let mut trace = Self::default();
        let log = fs::read_to_string(run.join("events.jsonl")).expect("a run writes its history");
        for line in log.lines() {
            match event(line) {
                EventKind::RoundCommitted { slices, .. } => trace.slices.push(slices.to_string()),
                EventKind::RunFinished { test, .. } => {
                    trace.test = Some(serde_json::to_string(&test).expect("plain data"));
                }
                _ => {}
            }
        }
        trace
    }
}

/// A process that was started and will be waited for.
pub struct Process {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Process {
    fn new(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary was built with this test");
        let stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// Reads events (the process has `--json`) until one is as wanted.
    pub fn until(&mut self, wanted: impl Fn(&EventKind) -> bool) {
        let found = self.stdout.by_ref().any(|line| wanted(&event(&line.expect("text"))));
        assert!(found, "the process ended first: {}", self.stderr());
    }

    /// Until the round that starts from the state of commit `round` is open.
    pub fn until_open(&mut self, round: u64) {
        self.until(|event| {
            matches!(event, EventKind::RoundOpened { attempt, .. } if attempt.round.0 == round)
        });
    }

    /// Reads standard error until a line has these words.
    pub fn until_said(&mut self, words: &str) {
        let found = self.stderr.by_ref().lines().any(|line| line.expect("text").contains(words));
        assert!(found, "the process ended without saying {words:?}");
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it was started here");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// Closes the end of the pipe that the process writes its results to.
    pub fn stop_reading(self) -> Child {
        self.child
    }

    /// Waits for the end: exit status, standard output, standard error.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let lines: Result<Vec<_>, _> = self.stdout.by_ref().collect();
        let stderr = self.stderr();
        let status = self.child.wait().expect("it was started here");
        (status, lines.expect("text").join("\n"), stderr)
    }

    /// As [`Process::end`], where all went well.
    pub fn succeed(self) -> String {
        let (status, _, stderr) = self.end();
        assert!(status.success(), "{stderr}");
        stderr
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("text");
        text
    }
}

/// A line of the history.
pub fn event(line: &str) -> EventKind {
    serde_json::from_str::<RunEvent>(line).expect("standard output and the log hold events").kind
}

//! Who may do what on the broker (architecture.md 5): each attempt is refused, by the broker or by the member
//! it is aimed at, and the federation goes on to the result it would have had.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use fellrec::config::{Layers, Loaded};
use fellrec::federation::collection::{CollectionError, SubmittedSlice};
use fellrec::federation::round::Attempt;
use fellrec::ids::{ClientId, Round};
use fellrec::model::cut::Place as ModelPlace;
use fellrec::model::slice::{Digest, Slice};
use fellrec::split::wire;
use fellrec_actors::link::caller::CallError;
use fellrec_actors::link::connection::{Dial, TlsFiles};
use fellrec_actors::link::envelope::{AnswerHead, CallId, Letter, RequestHead, Step, open, seal};
use fellrec_actors::link::line::Line;
use fellrec_actors::link::subjects::Lane;
use fellrec_actors::messages::{StepDone, SubmitSlice};
use fellrec_actors::registry::MemberName;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use tokio::sync::mpsc;

use super::nodes::{ROUNDS, SIMULATED, incidents, supervise, trace, up_without_supervisor};
use crate::support::Place;

/// What a member's subjects end in, by what is asked.
const VERBS: [&str; 5] = ["call", "wait", "step", "put", "get"];
/// How long the members may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with the kit of client-5, who does not keep to the rules.
struct Intruder {
    client: Client,
    /// What the broker objects to.
    objections: mpsc::UnboundedReceiver<String>,
    calls: u64,
}

async fn dial(broker: &str, files: Option<&Path>, authority: &Path) -> Result<Intruder, String> {
    let (object, objections) = mpsc::unbounded_channel();
    let mut options = ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(authority.to_owned())
        .custom_inbox_prefix("_INBOX_client-5")
        .event_callback(move |event| {
            let object = object.clone();
            async move {
                if let Event::ServerError(error) = event {
                    let _ = object.send(error.to_string());
                }
            }
        });
    if let Some(files) = files {
        options = options.add_client_certificate(files.join("cert.pem"), files.join("key.pem"));
    }
    let client = options.connect(broker).await.map_err(|error| error.to_string())?;
    Ok(Intruder { client, objections, calls: 0 })
}

impl Intruder {
    /// The broker's word against what was just tried.
    async fn objection(&mut self) -> String {
        self.client.flush().await.expect("it is connected");
        let told = tokio::time::timeout(Duration::from_secs(5), self.objections.recv()).await;
        told.expect("the broker objects").expect("it is connected")
    }

    /// Asks, once whom it asks is there.
    async fn ask(&self, subject: &str, letter: Letter) -> (AnswerHead, Bytes) {
        let start = Instant::now();
        loop {
            let Letter { headers, body } = letter.clone();
            let request = Request::new().headers(headers).payload(body);
            let request = request.timeout(Some(Duration::from_secs(5)));
            match self.client.send_request(subject.to_owned(), request).await {
                Ok(answer) => {
                    let head = open::<AnswerHead>(&answer).expect("an answer");
                    return (head, answer.payload);
                }
                Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                    assert!(start.elapsed() < PATIENCE, "nobody hears {subject}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{subject}: {error}"),
            }
        }
    }

    async fn call(&mut self, subject: &str, step: Step, body: &[u8]) -> (AnswerHead, Bytes) {
        self.calls += 1;
        let call = CallId { life: 1, number: self.calls };
        let head = RequestHead { call, oldest: 0, step };
        self.ask(subject, sealed(&head, body)).await
    }
}

fn sealed(head: &RequestHead, body: &[u8]) -> Letter {
    seal(head, Bytes::copy_from_slice(body)).expect("a request")
}

/// Writes a certificate of client-5 by the federation's own authority that holds until a year.
fn forge(place: &Place, folder: &str, until: i32) {
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = name("fellrec up authority");
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = KeyPair::from_pem(&place.read("up/federation/ca/ca.key")).expect("made");
    let mut params = CertificateParams::default();
    params.distinguished_name = name("client-5");
    params.subject_alt_names =
        vec![SanType::Rfc822Name("client-5@up.fellrec".try_into().expect("made"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().expect("made");
    let cert = params.signed_by(&key, &Issuer::new(issuer, authority)).expect("made");
    std::fs::create_dir(place.path(folder)).expect("made");
    place.write(&format!("{folder}/cert.pem"), &cert.pem());
    place.write(&format!("{folder}/key.pem"), &key.serialize_pem());
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "fellrec");
    name.push(DnType::CommonName, common_name);
    name
}

fn reason((head, _): &(AnswerHead, Bytes)) -> &str {
    match head {
        AnswerHead::Refused { reason } => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A refused publish returns Ok; the call that it was of still fails, and not by its deadline.
fn calls_of_others_fail_at_once(broker: &str, kit: &Path, ca: &Path) {
    let (member, to) = (MemberName::Client(ClientId(5)), MemberName::Client(ClientId(4)));
    let tls = TlsFiles { ca: ca.to_owned(), cert: kit.join("cert.pem"), key: kit.join("key.pem") };
    let nodes = Loaded::load(&Layers::default()).expect("the defaults").config.nodes;
    actix::System::new().block_on(async {
        let started = Instant::now();
        let line = loop {
            // The broker reloads in its own time.
            let (broker, tls) = (broker.to_owned(), Some(tls.clone()));
            let dial = Dial { broker, member, tls, patience: PATIENCE };
            match Line::dial(dial, "up".parse().expect("a name"), None, 2, &nodes).await {
                Ok(line) => break line,
                Err(error) => assert!(started.elapsed() < PATIENCE, "its own: {error}"),
            }
        };
        let asked = Instant::now();
        let call = line.caller().call(to, Lane::Control, "open-round", Vec::new()).await;
        assert!(matches!(call, Err(CallError::Forbidden(_))), "{call:?}");
        assert!(asked.elapsed() < nodes.lease(), "by the broker's word, not by the lease");
        line.close();
    });
}

#[test]
fn whatever_a_member_tries_beyond_its_rights_is_refused_and_the_run_goes_on() {
    let place = Place::new();
    let members = up_without_supervisor(&place, &[]);
    // A client that the federation knows, and that has no part in this run.
    place.process(&["provision", "add", "up/federation", "client-5"]).succeed();
    super::nodes::signal(&place, "broker", "HUP");
    let path = |name: &str| place.path("up/federation").join(name);
    let kit = path("kits/client-5");
    let broker: toml::Table = toml::from_str(&place.read("up/federation/federation.toml")).unwrap();
    let broker = broker["broker"].as_str().unwrap().to_owned();
    // Another authority, with a certificate of the same name.
    place.write("other.toml", "run = \"up\"\nbroker = \"127.0.0.1:1\"\nclients = 6\n");
    place.process(&["provision", "other.toml", "--out", "other"]).succeed();
    calls_of_others_fail_at_once(&broker, &kit, &path("ca/ca.pem"));
    let mut first = None;
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let authority = path("ca/ca.pem");
        let started = Instant::now();
        let mut intruder = loop {
            // The broker reloads in its own time.
            match dial(&broker, Some(&kit), &authority).await {
                Ok(intruder) => break intruder,
                Err(error) => assert!(started.elapsed() < PATIENCE, "its own: {error}"),
            }
        };
        assert!(dial(&broker, None, &authority).await.is_err(), "no certificate");
        let forged = place.path("other/kits/client-5");
        assert!(dial(&broker, Some(&forged), &authority).await.is_err(), "another authority's");
        for (folder, until, holds) in [("expired", 2021, false), ("valid", 2100, true)] {
            forge(&place, folder, until);
            let dialled = dial(&broker, Some(&place.path(folder)), &authority).await;
            assert_eq!(dialled.is_ok(), holds, "{folder}");
        }

        // As another member, to the broker's store, to everybody: publishing and hearing.
        for subject in [
            "fell.up.agg.call.client-4",
            "fell.up.c.client-4.call.client-5",
            "fell.up.c.client-4.call.supervisor",
            "fell.other.agg.call.client-5",
            "$JS.API.STREAM.NAMES",
            "_INBOX_client-4.x",
        ] {
            intruder.client.publish(subject, "x".into()).await.unwrap();
            let objection = intruder.objection().await.to_lowercase();
            assert!(
                objection.contains("permissions violation for publish"),
                "{subject}: {objection}"
            );
        }
        for subject in ["fell.up.c.client-4.>", "fell.up.agg.>", "_INBOX_client-4.>", ">", "$KV.>"]
        {
            let _heard = intruder.client.subscribe(subject).await.unwrap();
            let objection = intruder.objection().await.to_lowercase();
            assert!(objection.contains("violation for subscription"), "{subject}: {objection}");
        }

        // What is no message, and a message that claims more than may be.
        let aggregator = "fell.up.agg.put.client-5";
        let receivers = ["agg", "s.shard-0-0", "s.shard-0-1"];
        for (receiver, verb) in receivers.iter().flat_map(|r| VERBS.map(|verb| (r, verb))) {
            let subject = format!("fell.up.{receiver}.{verb}.client-5");
            for bytes in [vec![], vec![0xff; 3], vec![7; 100_000]] {
                // Bytes alone, and behind a head that is none.
                let mut strange = HeaderMap::new();
                strange.insert("Fell-Head", "AAAA");
                for headers in [HeaderMap::new(), strange] {
                    let letter = Letter { headers, body: bytes.clone().into() };
                    reason(&intruder.ask(&subject, letter).await);
                }
            }
        }
        for (of, total) in [(1, u64::MAX), (u32::MAX, 1 << 20), (0, 10), (2, 1 << 45)] {
            let step = Step::Chunk { name: "submit-slice".to_owned(), index: 0, of, total };
            reason(&intruder.call(aggregator, step, b"x").await);
        }
        let step = Step::Whole { name: "open-round".to_owned() };
        let answer = intruder.call("fell.up.agg.call.client-5", step, b"").await;
        assert!(reason(&answer).contains("takes no message"), "{answer:?}");

        // An answer that is to go to somebody else gets none.
        let subject = "fell.up.agg.call.client-5";
        let elsewhere = "_INBOX_client-4.stolen";
        intruder.client.publish_with_reply(subject, elsewhere, "x".into()).await.unwrap();

        // Another client's progress, under its own name on the broker.
        let mut running = supervise(&place, "up/nodes/supervisor");
        running.until_open(1);
        first = Some(running);
        let attempt = Attempt { round: Round(1), attempt: 0 };
        let done = StepDone { attempt, client: ClientId(4), done: 1, of: 2 };
        let step = Step::Whole { name: "step-done".to_owned() };
        let frame = wire::encode(&done).unwrap();
        let answer = intruder.call("fell.up.sup.call.client-5", step, &frame).await;
        assert!(reason(&answer).contains("not client-5's to send"), "{answer:?}");

        // Tensors that the model does not have, as its own; and another client's.
        let strange = |client| SubmitSlice {
            attempt,
            client,
            place: ModelPlace::Front,
            holder: None,
            slice: SubmittedSlice { trained: Slice::default(), start: Slice::default() },
        };
        let step = || Step::Whole { name: "submit-slice".to_owned() };
        let subject = "fell.up.agg.step.client-5";
        let frame = wire::encode(&strange(ClientId(5))).unwrap();
        let (_, told) = intruder.call(subject, step(), &frame).await;
        let told = wire::decode::<Result<Digest, CollectionError>>(&told).unwrap().unwrap_err();
        assert!(told.to_string().contains("does not fit the model"), "{told}");
        let frame = wire::encode(&strange(ClientId(4))).unwrap();
        let answer = intruder.call(subject, step(), &frame).await;
        assert!(reason(&answer).contains("not client-5's to send"), "{answer:?}");
        // What was asked once and is over is not done again.
        let (replayed, now) = (CallId { life: 1, number: 1 }, intruder.calls + 1);
        let head = RequestHead { call: CallId { life: 1, number: now }, oldest: now, step: step() };
        intruder.ask(subject, sealed(&head, &frame)).await;
        let head = RequestHead { call: replayed, oldest: 0, step: step() };
        let (answer, _) = intruder.ask(subject, sealed(&head, &frame)).await;
        assert_eq!(answer, AnswerHead::Unknown);
    });
    first.expect("started above").succeed();
    members.succeed();
    assert_eq!(trace(&place), *SIMULATED, "{:#?}", incidents(&place));
    let log = place.read("up/logs/aggregator.log");
    for told in ["refused", "client-5", "_INBOX_client-4.stolen"] {
        assert!(log.contains(told), "the aggregator's log names {told}: {log}");
    }
}

#[test]
fn a_revoked_member_is_sent_off_and_not_let_in_again() {
    let place = Place::new();
    let members = up_without_supervisor(&place, &["--leave-out", "client-3"]);
    let kit = ["--kit", "up/federation/kits/client-3", "--out", "late", "--set", ROUNDS];
    let node = || place.process(&[&["node"], &kit[..]].concat());
    let running = node();
    // Time to come in; who comes too late finds the door closed, which is what is to be seen.
    std::thread::sleep(Duration::from_secs(3));
    place.process(&["provision", "revoke", "up/federation", "client-3"]).succeed();
    super::nodes::signal(&place, "broker", "HUP");
    for node in [running, node()] {
        let (status, _, stderr) = node.end();
        assert_eq!(status.code(), Some(1));
        assert!(stderr.contains("refuses client-3") && stderr.contains("renew"), "{stderr}");
    }
    members.signal("INT");
    let (status, _, _) = members.end();
    assert_eq!(status.code(), Some(130));
}

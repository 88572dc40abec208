//! The simulator as its callers see it: over real HTTP, with a receiver for its callbacks.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers as well")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::StreamExt;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use songflight::simulator::{self, Latency, Observer, Options, Seen, Simulator, Told};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// Longer than anything here takes, so that only a fault is waited out.
const PATIENCE: Duration = Duration::from_secs(20);

#[actix_web::test]
async fn a_song_is_told_of_in_three_callbacks_and_found_by_polls() {
    let mut stage = Stage::new().await;
    let task = stage.submit("generate", a_song("a calm harbour")).await;

    for (name, clips_whole) in [("text", 0), ("first", 1), ("complete", 2)] {
        let callback = stage.callback().await;
        assert_eq!(callback["data"]["callbackType"], name);
        assert_eq!(callback["data"]["task_id"], task);
        let clips = callback["data"]["data"].as_array().unwrap();
        assert_eq!(clips.iter().filter(|clip| clip["duration"].is_number()).count(), clips_whole);
    }
    let found = stage.poll("generate", &task).await;
    assert_eq!(found["status"], "SUCCESS");
    assert_eq!(found["response"]["sunoData"].as_array().unwrap().len(), 2);
    assert_same_shape(&found, "status_success", "data");
    stage.end().await;
}

#[actix_web::test]
async fn lyrics_come_as_two_texts() {
    let mut stage = Stage::new().await;
    let task = stage.submit("lyrics", json!({"prompt": "lanterns over the bay"})).await;
    let callback = stage.callback().await;
    assert_same_shape(&callback, "callback_lyrics_complete", "");
    assert_eq!(callback["data"]["taskId"], task);
    let texts = callback["data"]["data"].as_array().unwrap();
    assert_eq!(texts.len(), 2);
    assert_ne!(texts[0]["text"], texts[1]["text"]);

    let found = stage.poll("lyrics", &task).await;
    assert_same_shape(&found, "status_lyrics_success", "data");
    assert_eq!(found["response"]["data"], callback["data"]["data"], "a poll tells the same");
    stage.end().await;
}

#[actix_web::test]
async fn what_is_made_of_a_clip_has_the_recorded_shapes_and_real_files() {
    let mut stage = Stage::new().await;
    for (path, request, callback, status) in [
        ("vocal-removal", "request_vocal_removal", "callback_stems_two", "status_stems_two"),
        ("mp4", "request_mp4", "callback_mp4", "status_mp4"),
    ] {
        let task = stage.submit(&format!("{path}/generate"), about_a_clip(request)).await;
        assert_eq!(stage.poll(path, &task).await["successFlag"], "PENDING");
        let told = stage.callback().await;
        assert_same_shape(&told, callback, "");
        assert_eq!(told["data"]["task_id"], task);
        let found = stage.poll(path, &task).await;
        assert_same_shape(&found, status, "data");
        let urls = [&told["data"]["vocal_removal_info"]["vocal_url"], &told["data"]["video_url"]];
        let url = urls.into_iter().find_map(Value::as_str).unwrap();
        assert!(found.to_string().contains(url), "a poll tells the same");
        let file = stage.client.get(url).send().await.unwrap();
        let (kind, magic) =
            if path == "mp4" { ("video/mp4", &b"ftyp"[..]) } else { ("audio/wav", &b"WAVE"[..]) };
        assert_eq!(file.headers()["content-type"], kind);
        assert!(file.bytes().await.unwrap()[..16].windows(4).any(|four| four == magic));
    }
    stage.submit("vocal-removal/generate", about_a_clip("request_split_stem")).await;
    assert_same_shape(&stage.callback().await, "callback_stems_twelve", "");
    stage.control(json!({"fail": {"class": "provider_error"}})).await;
    stage.submit("mp4/generate", about_a_clip("request_mp4")).await;
    assert_same_shape(&stage.callback().await, "callback_mp4_failed", "");
    stage.submit("vocal-removal/generate", about_a_clip("request_vocal_removal")).await;
    assert_same_shape(&stage.callback().await, "callback_stems_failed", "");
    stage.end().await;
}

#[actix_web::test]
async fn a_clip_is_extended_covered_and_changed_as_songs_are_made() {
    let mut stage = Stage::new().await;
    for name in ["extend", "upload-extend", "upload-cover"] {
        let request = match name {
            "extend" => "request_extend_custom".to_owned(),
            other => format!("request_{}", other.replace('-', "_")),
        };
        let task = stage.submit(&format!("generate/{name}"), about_a_clip(&request)).await;
        for told in ["text", "first", "complete"] {
            assert_eq!(stage.callback().await["data"]["callbackType"], told, "{name}");
        }
        assert_eq!(stage.poll("generate", &task).await["status"], "SUCCESS");
    }
    let task = stage.submit("generate/replace-section", about_a_clip("request_replace_section")).await;
    let only = stage.callback().await;
    assert_eq!((&only["data"]["callbackType"], &only["data"]["task_id"]), (&json!("complete"), &json!(task)));
    assert_eq!(only["data"]["data"].as_array().unwrap().len(), 1);
    assert_eq!(only["data"]["data"][0]["title"], "Harbour Lights");
    stage.end().await;
}

#[actix_web::test]
async fn a_persona_is_answered_at_once() {
    let stage = Stage::new().await;
    let made =
        stage.order("generate/generate-persona", about_a_clip("request_persona")).send().await.unwrap();
    let made = made.json::<Value>().await.unwrap();
    assert_same_shape(&made, "response_persona", "");
    assert_eq!(made["data"]["name"], "Harbour voice");
    let stats = stage.get("/control/stats").await;
    assert_eq!(stats["submissions"], json!({"lyrics": 0, "generate": 0, "additions": 1}));
    assert_eq!(stats["providers"], json!({"suno": {"accepted": 1, "refused": 0}}));
    stage.end().await;
}

#[actix_web::test]
async fn the_other_gateway_has_other_numbers() {
    let stage = Stage::new().await;
    let code = async |prompt: &str| {
        let answer = stage.order("generate", a_song(prompt)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["code"].clone()
    };
    let (no_credits, too_fast) = ("sim:fail=insufficient_provider_credits", "sim:fail=rate_limited@9");
    assert_eq!([code(no_credits).await, code(too_fast).await, code("").await], [429, 430, 400]);
    stage.control(json!({"dialect": "kie"})).await;
    assert_eq!([code(no_credits).await, code(too_fast).await, code("").await], [402, 429, 422]);
    stage.end().await;
}

#[actix_web::test]
async fn callbacks_and_polls_have_the_recorded_shapes() {
    let mut stage = Stage::new().await;
    stage.submit("generate", a_song("shapes")).await;
    stage.callback().await;
    stage.callback().await;
    assert_same_shape(&stage.callback().await, "callback_complete", "");

    let task = stage.submit("generate", a_song("shapes sim:fail=moderation")).await;
    assert_same_shape(&stage.callback().await, "callback_error_400_moderation", "");
    let found = stage.poll("generate", &task).await;
    assert_eq!(found["status"], "SENSITIVE_WORD_ERROR");
    assert_same_shape(&found, "status_sensitive_word_error", "data");

    let task = stage.submit("lyrics", json!({"prompt": "sim:fail=provider_error"})).await;
    assert_eq!(stage.callback().await["code"], 500);
    assert_eq!(stage.poll("lyrics", &task).await["status"], "GENERATE_LYRICS_FAILED");
    let nobody = stage.get(&format!("/suno/api/v1/generate/record-info?taskId={}", "0".repeat(32))).await;
    assert_eq!(nobody, fixture("status_unknown_task"));
    assert_eq!(stage.get("/suno/api/v1/generate/credit").await, fixture("response_credits"));
    stage.end().await;
}

#[actix_web::test]
async fn the_files_of_a_clip_are_real_and_as_long_as_told() {
    let mut stage = Stage::new().await;
    stage.submit("generate", a_song("files")).await;
    let clip = loop {
        let callback = stage.callback().await;
        if callback["data"]["callbackType"] == "complete" {
            break callback["data"]["data"][0].clone();
        }
    };
    for name in ["audio_url", "stream_audio_url", "source_audio_url"] {
        let answer = stage.client.get(clip[name].as_str().unwrap()).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "audio/wav");
        let sound = answer.bytes().await.unwrap();
        assert_eq!((sound.len() - 44) as f64 / 2.0 / 22_050.0, clip["duration"].as_f64().unwrap());
    }
    let audio = clip["audio_url"].as_str().unwrap();
    let part = stage.client.get(audio).header("range", "bytes=0-3").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), "RIFF");
    let head = stage.client.head(audio).send().await.unwrap();
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 300_000);
    let cover = stage.client.get(clip["image_url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(cover.headers()["content-type"], "image/png");
    let nothing = stage.request(Method::GET, "/suno/files/nothing.wav").send().await.unwrap();
    assert_eq!(nothing.status(), 404);
    stage.end().await;
}

#[actix_web::test]
async fn refusals_are_told_in_the_envelope() {
    let stage = Stage::new().await;
    for (class, recorded) in [
        ("insufficient_provider_credits", "response_error_429_credits"),
        ("rate_limited", "response_error_430_frequency"),
    ] {
        let answer = stage.order("generate", a_song(&format!("sim:fail={class}"))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), fixture(recorded));
    }
    stage.submit("generate", a_song("sim:fail=rate_limited")).await;
    let answer = stage.order("lyrics", json!({"prompt": "x".repeat(201)})).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap(), fixture("response_error_413"));
    stage.end().await;
}

#[actix_web::test]
async fn the_same_seed_tells_the_same_songs_under_other_ids() {
    let mut told = Vec::new();
    for _ in 0..2 {
        let mut stage = Stage::new().await;
        let task = stage.submit("lyrics", json!({"prompt": "lanterns over the bay"})).await;
        told.push((stage.callback().await["data"]["data"].take(), task));
        stage.end().await;
    }
    assert_eq!(told[0].0, told[1].0);
    assert_ne!(told[0].1, told[1].1);
}

#[actix_web::test]
async fn a_counted_failure_ends_after_its_count() {
    let stage = Stage::new().await;
    for _ in 0..2 {
        // Either the connection breaks or a proxy's page comes; both say nothing of a task.
        let answer = stage.order("generate", a_song("rain sim:fail=network@2")).send().await;
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 502));
        assert_eq!(stage.accepted().await, 0);
    }
    stage.submit("generate", a_song("rain sim:fail=network@2")).await;
    assert_eq!(stage.accepted().await, 1);
    stage.end().await;
}

#[actix_web::test]
async fn a_cut_answer_leaves_a_task_behind() {
    let mut stage = Stage::new().await;
    stage.control(json!({"drop_answer": 1.0})).await;
    let answer = stage.order("lyrics", json!({"prompt": "rain"})).send().await;
    assert!(match answer {
        Err(_) => true,
        Ok(answer) => answer.bytes().await.is_err(),
    });
    assert_eq!(stage.callback().await["data"]["callbackType"], "complete");
    assert_eq!(stage.accepted().await, 1);
    stage.end().await;
}

#[actix_web::test]
async fn a_callback_may_come_before_the_answer() {
    let mut stage = Stage::new().await;
    stage.control(json!({"answer_delay_ms": 60_000})).await;
    let answer = actix_web::rt::spawn(stage.order("lyrics", json!({"prompt": "rain"})).send());
    assert_eq!(stage.callback().await["code"], 200);
    assert!(!answer.is_finished());
    stage.end().await;
    assert!(answer.await.unwrap().is_err(), "who stops waits for nobody");
}

#[actix_web::test]
async fn a_server_error_takes_no_task() {
    let stage = Stage::new().await;
    stage.control(json!({"http_500": 1.0})).await;
    let answer = stage.order("lyrics", json!({"prompt": "rain"})).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.json::<Value>().await.unwrap(), fixture("response_error_500"));
    assert_eq!(stage.accepted().await, 0);
    stage.end().await;
}

#[actix_web::test]
async fn a_second_accepted_submission_of_an_intent_is_counted() {
    let stage = Stage::new().await;
    for key in ["t.0.0", "t.0.1", "t.0.0"] {
        let order = stage.order("lyrics", json!({"prompt": "rain"}));
        order.header("idempotency-key", key).send().await.unwrap();
    }
    let stats = stage.get("/control/stats").await;
    assert_eq!(stats["duplicates_of_intent"], 1);
    assert_eq!(stats["submissions"], json!({"lyrics": 3, "generate": 0, "additions": 0}));
    assert_eq!(stage.get("/control/intents?min=2").await, json!([{"key": "t.0.0", "count": 2}]));

    let reset = stage.request(Method::POST, "/control/reset").send().await.unwrap();
    assert_eq!(reset.status(), 200);
    assert_eq!(stage.get("/control/stats").await["duplicates_of_intent"], 0);
    stage.end().await;
}

#[actix_web::test]
async fn an_observer_sees_what_was_taken_and_when_callbacks_leave() {
    let (tell, mut seen) = unbounded_channel();
    let observer: Observer = Arc::new(move |event: Seen| tell.send(format!("{event:?}")).unwrap());
    let stage = Stage::with(Options { observer: Some(observer), ..quick() }).await;
    stage.order("lyrics", json!({"prompt": "rain"})).header("idempotency-key", "t.0.0").send().await.unwrap();
    for expected in [
        Seen::Accepted { intent: "t.0.0" },
        Seen::CallbackLeaves { intent: "t.0.0", told: Told::Complete },
        Seen::CallbackTaken { intent: "t.0.0", told: Told::Complete },
    ] {
        let event = timeout(PATIENCE, seen.recv()).await.expect("an event in time").unwrap();
        assert_eq!(event, format!("{expected:?}"));
    }
    stage.end().await;
}

#[actix_web::test]
async fn a_callback_that_is_not_taken_comes_again() {
    let mut stage = Stage::new().await;
    stage.control(json!({"callback_retry_ms": [1, 1]})).await;
    let refusing = json!({"prompt": "rain", "callBackUrl": format!("{}/refuse", stage.receiver)});
    let task = stage.submit("lyrics", refusing).await;
    for _ in 0..3 {
        stage.callback().await;
    }
    stage.until("callbacks_failed", 1).await;
    assert_eq!(stage.poll("lyrics", &task).await["status"], "CALLBACK_EXCEPTION");
    stage.end().await;
}

#[actix_web::test]
async fn words_lose_callbacks_and_double_them() {
    let mut stage = Stage::new().await;
    stage.submit("lyrics", json!({"prompt": "sim:twice"})).await;
    let first = stage.callback().await;
    assert_eq!(first, stage.callback().await);
    let lost = stage.submit("lyrics", json!({"prompt": "sim:lose"})).await;
    stage.until("callbacks_lost", 1).await;
    assert_eq!(stage.poll("lyrics", &lost).await["status"], "SUCCESS");
    stage.until("callbacks_sent", 2).await;
    stage.end().await;
}

#[actix_web::test]
async fn control_shows_what_holds_and_refuses_what_it_does_not_know() {
    let stage = Stage::new().await;
    let behaviour = stage.control(json!({"rate_limit": "1/1h", "loss": null})).await;
    assert_eq!(behaviour["rate_limit"], "1/3600s");
    assert_eq!(stage.get("/control").await, behaviour);
    stage.submit("lyrics", json!({"prompt": "rain"})).await;
    let second = stage.order("lyrics", json!({"prompt": "rain"})).send().await.unwrap();
    assert_eq!(second.json::<Value>().await.unwrap()["code"], 430);

    let wrong = stage.request(Method::POST, "/control").json(&json!({"lost": 1})).send().await.unwrap();
    assert_eq!(wrong.status(), 400);
    assert_eq!(wrong.json::<Value>().await.unwrap()["key"], "lost");
    stage.control(json!({"down": true})).await;
    let down = stage.request(Method::GET, "/suno/api/v1/generate/credit").send().await.unwrap();
    assert_eq!(down.status(), 503);
    for (down, status) in [(json!(["suno"]), 503), (json!([]), 200)] {
        stage.control(json!({"down": down})).await;
        let asked = stage.request(Method::GET, "/suno/api/v1/generate/credit").send().await.unwrap();
        assert_eq!(asked.status(), status);
    }
    stage.end().await;
}

#[actix_web::test]
async fn a_key_is_asked_for_where_one_is_set() {
    let stage = Stage::with(Options { api_key: Some("secret".into()), ..quick() }).await;
    let credit = || stage.request(Method::GET, "/suno/api/v1/generate/credit");
    let refused = credit().send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(refused, fixture("response_error_401"));
    let let_in = credit().bearer_auth("secret").send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(let_in["code"], 200);
    stage.end().await;
}

#[actix_web::test]
async fn a_simulator_with_a_memory_goes_on_where_the_last_one_stopped() {
    let memory = Memory::new("goes-on");
    let mut stage = Stage::with(memory.options()).await;
    let task = stage.submit("generate", a_song("a long road sim:slow=2s")).await;
    assert_eq!(stage.callback().await["data"]["callbackType"], "text");
    stage.until("callbacks_sent", 1).await;
    let before = stage.origin.clone();
    stage.start_again(memory.options()).await;
    assert_eq!(stage.origin, before, "it is found where it was");

    assert_eq!(stage.poll("generate", &task).await["status"], "TEXT_SUCCESS");
    for name in ["first", "complete"] {
        let callback = stage.callback().await;
        assert_eq!(
            (&callback["data"]["callbackType"], &callback["data"]["task_id"]),
            (&json!(name), &json!(task))
        );
    }
    let found = stage.poll("generate", &task).await;
    assert_eq!(found["status"], "SUCCESS");

    // What was told is remembered as well.
    stage.until("callbacks_sent", 2).await;
    stage.start_again(memory.options()).await;
    assert_eq!(stage.poll("generate", &task).await, found);
    stage.until("tasks_open", 0).await;
    stage.end().await;
}

#[actix_web::test]
async fn callbacks_that_came_due_while_the_simulator_was_away_are_sent_at_the_start() {
    let memory = Memory::new("late");
    let mut stage = Stage::with(memory.options()).await;
    let task = stage.submit("generate", a_song("a long sleep sim:slow=1m")).await;
    let key = stage.order("generate", a_song("x")).header("idempotency-key", "song.1");
    assert_eq!(key.send().await.unwrap().status(), 200);
    stage.stop_simulator().await;
    memory.put_back("created", 120_000);
    stage.start_simulator(memory.options());

    assert_eq!(stage.poll("generate", &task).await["status"], "SUCCESS", "the time went on");
    let mut told = Vec::new();
    while told.len() < 3 {
        let callback = stage.callback().await;
        if callback["data"]["task_id"] == task {
            told.push(callback["data"]["callbackType"].as_str().unwrap().to_owned());
        }
    }
    told.sort();
    assert_eq!(told, ["complete", "first", "text"]);
    // Who orders the same once more, after a restart of both, is still seen.
    let key = stage.order("generate", a_song("x")).header("idempotency-key", "song.1");
    assert_eq!(key.send().await.unwrap().status(), 200);
    assert_eq!(stage.get("/control/intents").await, json!([{"key": "song.1", "count": 2}]));
    stage.end().await;
}

#[actix_web::test]
async fn a_memory_keeps_up_with_many_at_once() {
    const TASKS: usize = 2_000;
    let memory = Memory::new("many");
    let mut stage = Stage::with(memory.options()).await;
    stage.control(json!({"callbacks": false})).await;
    let orders = futures_util::stream::iter(0..TASKS);
    let orders = orders.map(|_| stage.submit("generate", a_song("many sim:slow=1h")));
    let tasks: Vec<String> = orders.buffer_unordered(64).collect().await;
    stage.start_again(memory.options()).await;
    stage.until("tasks_open", TASKS as u64).await;
    for task in tasks.iter().step_by(100) {
        assert_eq!(stage.poll("generate", task).await["status"], "PENDING");
    }
    stage.end().await;
}

/// A simulator, a receiver of its callbacks, and a client between them.
struct Stage {
    simulator: Option<Simulator>,
    origin: String,
    receiver: String,
    receiving: actix_web::dev::ServerHandle,
    callbacks: UnboundedReceiver<Value>,
    client: Client,
}

impl Stage {
    async fn new() -> Self {
        Self::with(quick()).await
    }

    async fn with(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let simulator = simulator::start(listener, options).unwrap();
        let (tell, callbacks) = unbounded_channel();
        let (receiver, receiving) = receive(tell);
        let origin = format!("http://{}", simulator.address());
        let client = client();
        Self { simulator: Some(simulator), origin, receiver, receiving, callbacks, client }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.origin))
    }

    async fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path).send().await.unwrap().json().await.unwrap()
    }

    fn order(&self, kind: &str, mut order: Value) -> RequestBuilder {
        if order.get("callBackUrl").is_none() {
            order["callBackUrl"] = json!(format!("{}/take", self.receiver));
        }
        self.request(Method::POST, &format!("/suno/api/v1/{kind}")).json(&order)
    }

    /// The id of the task that the order was taken as.
    async fn submit(&self, kind: &str, order: Value) -> String {
        let answer = self.order(kind, order).send().await.unwrap().json::<Value>().await.unwrap();
        assert_eq!(answer["code"], 200, "{answer}");
        let task = answer["data"]["taskId"].as_str().unwrap();
        assert_eq!(task.len(), 32);
        task.to_owned()
    }

    async fn poll(&self, kind: &str, task: &str) -> Value {
        self.get(&format!("/suno/api/v1/{kind}/record-info?taskId={task}")).await["data"].take()
    }

    async fn control(&self, change: Value) -> Value {
        let answer = self.request(Method::POST, "/control").json(&change).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn accepted(&self) -> u64 {
        self.get("/control/stats").await["accepted"].as_u64().unwrap()
    }

    /// Asks until a count has been reached.
    async fn until(&self, name: &str, count: u64) {
        let reached = async {
            while self.get("/control/stats").await[name].as_u64().unwrap() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} never came to {count}"));
    }

    async fn callback(&mut self) -> Value {
        timeout(PATIENCE, self.callbacks.recv()).await.expect("a callback in time").unwrap()
    }

    async fn start_again(&mut self, options: Options) {
        self.stop_simulator().await;
        self.start_simulator(options);
    }

    async fn stop_simulator(&mut self) {
        self.simulator.take().unwrap().stop().await;
    }

    /// Where it was before, if it remembers.
    fn start_simulator(&mut self, options: Options) {
        let listener = simulator::listen(options.memory.as_deref().unwrap()).unwrap();
        let simulator = simulator::start(listener, options).unwrap();
        self.origin = format!("http://{}", simulator.address());
        self.simulator = Some(simulator);
        // Connections to the one before lead nowhere.
        self.client = client();
    }

    async fn end(mut self) {
        let simulator = self.simulator.take().unwrap();
        let stopped = simulator.wait();
        simulator.stop().await;
        timeout(PATIENCE, stopped).await.unwrap();
        self.receiving.stop(false).await;
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A folder for a memory, gone with the test.
struct Memory(PathBuf);

impl Memory {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("songflight-simulator-{name}-{}", std::process::id())))
    }

    fn options(&self) -> Options {
        Options { memory: Some(self.0.clone()), ..quick() }
    }

    /// Lets every task have happened earlier.
    fn put_back(&self, field: &str, millis: i64) {
        let path = self.0.join("tasks.jsonl");
        let mut lines = String::new();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let mut line = serde_json::from_str::<Value>(line).unwrap();
            if let Some(value) = line["task"][field].as_i64() {
                line["task"][field] = json!(value - millis);
            }
            lines.push_str(&format!("{line}\n"));
        }
        std::fs::write(path, lines).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn quick() -> Options {
    Options { latency: Latency { lyrics_ms: [10, 20], music_ms: [300, 400] }, ..Options::default() }
}

fn a_song(prompt: &str) -> Value {
    json!({"customMode": false, "instrumental": false, "model": "V4_5", "prompt": prompt})
}

/// A recorded request, to be called back here.
fn about_a_clip(recorded: &str) -> Value {
    let mut request = fixture(recorded);
    request.as_object_mut().unwrap().remove("callBackUrl");
    request
}

/// Takes callbacks at `/take`, and refuses them at `/refuse`.
fn receive(tell: UnboundedSender<Value>) -> (String, actix_web::dev::ServerHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let server = HttpServer::new(move || {
        let taken = async |tell: web::Data<UnboundedSender<Value>>, body: web::Json<Value>| {
            tell.send(body.into_inner()).unwrap();
            HttpResponse::Ok().finish()
        };
        let refused = async |tell: web::Data<UnboundedSender<Value>>, body: web::Json<Value>| {
            tell.send(body.into_inner()).unwrap();
            HttpResponse::ServiceUnavailable().finish()
        };
        App::new()
            .app_data(web::Data::new(tell.clone()))
            .route("/take", web::post().to(taken))
            .route("/refuse", web::post().to(refused))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)
    .unwrap()
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    (origin, handle)
}

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/suno/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The same keys and the same kinds of values as what was recorded, at every depth.
fn assert_same_shape(told: &Value, recorded: &str, part: &str) {
    let recorded = fixture(recorded);
    let recorded = if part.is_empty() { &recorded } else { &recorded[part] };
    assert_eq!(shape(told), shape(recorded));
}

fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("true or false"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(things) => things.iter().map(shape).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
    }
}

//! MusicGPT's adapter against the simulator, over real HTTP in both directions: what one says the other
//! understands.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use songflight::provider::failure::{Class, Failure};
use songflight::provider::musicgpt::MusicGpt;
use songflight::provider::{
    Accepted, Callback, Clip, Made, News, Order, Provider, Stage, Submitted, TaskKind, Work,
};
use songflight::simulator::{self, Latency, Options, Simulator};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::fixtures;
use crate::musicgpt::{a_song, adapter, of_every_kind};

/// Longer than anything here takes, so that only a fault is waited out.
const PATIENCE: Duration = Duration::from_secs(20);

/// A simulator, the adapter that talks to it, and a receiver of its webhooks.
struct World {
    simulator: Simulator,
    musicgpt: MusicGpt,
    reply_to: String,
    webhooks: UnboundedReceiver<Value>,
}

impl World {
    fn new() -> Self {
        let latency = Latency { lyrics_ms: [10, 20], music_ms: [200, 300] };
        let options =
            Options { latency, api_key: Some(crate::conformance::KEY.into()), ..Options::default() };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let simulator = simulator::start(listener, options).expect("a simulator");
        let (tell, webhooks) = unbounded_channel();
        let musicgpt = adapter(&format!("http://{}/musicgpt", simulator.address()));
        Self { simulator, musicgpt, reply_to: receive(tell), webhooks }
    }

    async fn submit(&self, order: &Order) -> Result<Submitted, Failure> {
        self.musicgpt.submit(order, &self.reply_to).await
    }

    async fn task(&self, order: &Order) -> Accepted {
        match self.submit(order).await {
            Ok(Submitted::Task(taken)) => taken,
            other => panic!("{other:?}"),
        }
    }

    async fn webhook(&mut self) -> Value {
        timeout(PATIENCE, self.webhooks.recv()).await.expect("a webhook in time").expect("a receiver")
    }

    fn read(&self, kind: TaskKind, body: &Value) -> Callback {
        self.musicgpt.read(kind, body.to_string().as_bytes()).expect("a webhook")
    }

    /// Asks until there is an end.
    async fn polled(&self, order: &Order, task: &str) -> News {
        let end = async {
            loop {
                match self.musicgpt.poll(order, task).await.expect("an answer") {
                    News::Working | News::Clips(Stage::Text | Stage::First, _) => {
                        tokio::task::yield_now().await
                    }
                    end => return end,
                }
            }
        };
        timeout(PATIENCE, end).await.expect("an end in time")
    }
}

fn receive(tell: UnboundedSender<Value>) -> String {
    let taken = async |tell: web::Data<UnboundedSender<Value>>, body: web::Json<Value>| {
        // A test that has heard enough listens no more.
        let _ = tell.send(body.into_inner());
        HttpResponse::Ok().finish()
    };
    let app = move || App::new().app_data(web::Data::new(tell.clone())).route("/take", web::post().to(taken));
    let server = HttpServer::new(app).workers(1).disable_signals().bind(("127.0.0.1", 0)).expect("a port");
    let reply_to = format!("http://{}/take", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    reply_to
}

fn saying(order: Order, prompt: &str) -> Order {
    Order { prompt: Some(prompt.into()), ..order }
}

fn clips(news: News) -> Vec<Clip> {
    match news {
        News::Clips(_, clips) => clips,
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn a_song_is_told_of_asset_by_asset_and_found_by_polls() {
    let mut world = World::new();
    let order = a_song();
    let taken = world.task(&order).await;
    assert_eq!(taken.clip_ids.len(), 2);

    let mut told = Vec::new();
    let mut files = Vec::new();
    for _ in 0..5 {
        let body = world.webhook().await;
        told.push(body["subtype"].as_str().expect("a subtype").to_owned());
        let callback = world.read(TaskKind::Generate, &body);
        assert_eq!(callback.provider_task.as_ref(), Some(&taken.task));
        match callback.news {
            News::Clips(Stage::Text, clips) => {
                let ids: Vec<_> = clips.iter().filter_map(|clip| clip.clip_id.clone()).collect();
                assert_eq!(ids, taken.clip_ids, "the cover is of both");
            }
            News::Clips(Stage::First, clips) => files.extend(clips),
            News::Working => {}
            other => panic!("{other:?}"),
        }
    }
    let natural =
        ["album_cover_generation", "music_ai", "music_ai", "lyrics_timestamped", "lyrics_timestamped"];
    assert_eq!(told, natural);
    assert!(files.iter().all(|clip| clip.finished && clip.lyrics.is_some()));

    let News::Clips(Stage::Complete, found) = world.polled(&order, &taken.task).await else { panic!() };
    assert_eq!(found.iter().filter_map(|clip| clip.clip_id.clone()).collect::<Vec<_>>(), taken.clip_ids);
    for clip in &found {
        let same = files.iter().find(|told| told.clip_id == clip.clip_id).expect("a webhook told of it");
        assert_eq!((&same.audio_url, same.duration_ms), (&clip.audio_url, clip.duration_ms));
        let file = reqwest::get(clip.audio_url.as_deref().expect("audio")).await.expect("a file");
        assert_eq!(file.headers()["content-type"], "audio/wav");
        let cover = reqwest::get(clip.image_url.as_deref().expect("a cover")).await.expect("a picture");
        assert_eq!(cover.headers()["content-type"], "image/png");
    }
}

#[actix_web::test]
async fn webhooks_and_polls_have_the_recorded_shapes() {
    let mut world = World::new();
    let order = a_song();
    let taken = world.task(&order).await;
    for name in
        ["webhook_album_cover", "webhook_music_ai_1", "webhook_music_ai_2", "webhook_lyrics_timestamped_1"]
    {
        same_shape(&world.webhook().await, name);
    }
    let News::Clips(..) = world.polled(&order, &taken.task).await else { panic!("no clips") };
    let base = format!("http://{}/musicgpt/v1/byId", world.simulator.address());
    let ask = async |by: &str, id: &str| {
        let url = format!("{base}?conversionType=MUSIC_AI&{by}={id}");
        let request = reqwest::Client::new().get(url).header("authorization", crate::conformance::KEY);
        request.send().await.expect("an answer").json::<Value>().await.expect("JSON")
    };
    same_shape(&ask("task_id", &taken.task).await, "status_completed");
    same_shape(&ask("conversion_id", &taken.clip_ids[1]).await, "status_single_conversion");
    same_shape(&ask("conversion_id", &taken.task).await, "response_error_404_conversion");

    let refused = world.task(&saying(a_song(), "sim:fail=provider_error")).await;
    // The timed words of the other clip may still come.
    let failed = loop {
        let body = world.webhook().await;
        if body["task_id"] == *refused.task {
            break body;
        }
    };
    let News::Failed(failure) = world.read(TaskKind::Generate, &failed).news else { panic!("{failed}") };
    assert_eq!((failure.class, failure.code.as_deref()), (Class::ProviderError, Some("FAILED")));
    same_shape(&ask("task_id", &refused.task).await, "status_failed");
}

/// The same keys and the same kinds of values as what was recorded, at every depth.
fn same_shape(told: &Value, recorded: &str) {
    assert_eq!(
        shape(told),
        shape(&fixtures::one("musicgpt", &format!("{recorded}.json")).json()),
        "{recorded}"
    );
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

#[actix_web::test]
async fn every_kind_is_made_and_found_by_polls() {
    let world = World::new();
    let song = world.task(&a_song()).await;
    let made = clips(world.polled(&a_song(), &song.task).await);
    let audio_url = made[0].audio_url.clone().expect("audio");
    for order in of_every_kind(&audio_url) {
        match order.work {
            Work::Lyrics => {
                let Ok(Submitted::Done(News::Lyrics(texts))) = world.submit(&order).await else { panic!() };
                assert!(texts.len() == 1 && texts[0].text.contains("[Chorus]"));
            }
            Work::Stems { .. } => {
                let taken = world.task(&order).await;
                let News::Made(Made::Stems { stems }) = world.polled(&order, &taken.task).await else {
                    panic!()
                };
                assert_eq!([&*stems[0].name, &*stems[1].name], ["instrumental", "vocals"]);
                assert!(reqwest::get(&stems[0].url).await.is_ok_and(|file| file.status().is_success()));
            }
            _ => {
                let taken = world.task(&order).await;
                assert_eq!(clips(world.polled(&order, &taken.task).await).len(), 2, "{:?}", order.kind());
            }
        }
    }
}

#[actix_web::test]
async fn tracks_are_told_of_in_one_webhook() {
    let mut world = World::new();
    let order = of_every_kind("https://x.test/a.mp3").pop().expect("stems are the last");
    let taken = world.task(&order).await;
    let body = world.webhook().await;
    let callback = world.read(TaskKind::Stems, &body);
    assert_eq!(callback.provider_task, Some(taken.task));
    assert!(matches!(callback.news, News::Made(Made::Stems { stems }) if stems.len() == 2));
}

#[actix_web::test]
async fn two_texts_are_two_calls_with_two_results() {
    let world = World::new();
    let order = Order { work: Work::Lyrics, ..a_song() };
    let mut texts = Vec::new();
    for _ in 0..2 {
        let Ok(Submitted::Done(News::Lyrics(one))) = world.submit(&order).await else { panic!("no text") };
        texts.extend(one);
    }
    assert_ne!(texts[0].text, texts[1].text);
}

#[actix_web::test]
async fn of_a_section_as_many_clips_come_as_were_ordered() {
    let world = World::new();
    let section = of_every_kind("https://x.test/a.mp3").remove(3);
    let order = Order { variants: 1, ..section };
    let taken = world.task(&order).await;
    let found = clips(world.polled(&order, &taken.task).await);
    assert_eq!(found.iter().filter(|clip| clip.audio_url.is_some()).count(), 1);
}

#[actix_web::test]
async fn words_at_the_door_are_classified() {
    let world = World::new();
    for (class, expected) in [
        ("rate_limited", Class::RateLimited),
        ("insufficient_provider_credits", Class::InsufficientProviderCredits),
    ] {
        for work in [Work::Lyrics, Work::Generate] {
            let order = saying(Order { work, ..a_song() }, &format!("rain sim:fail={class}"));
            let failure = world.submit(&order).await.expect_err("a refusal");
            assert_eq!(failure.class, expected, "{class}");
        }
    }
    for (class, expected) in [
        ("moderation", Class::Moderation),
        ("invalid_input", Class::InvalidInput),
        ("provider_error", Class::ProviderError),
    ] {
        let order = saying(Order { work: Work::Lyrics, ..a_song() }, &format!("rain sim:fail={class}"));
        let failure = world.submit(&order).await.expect_err("a refusal");
        assert_eq!(failure.class, expected, "lyrics: {class}");
    }
    let long = Order { lyrics: Some("x".repeat(5_001)), ..a_song() };
    assert_eq!(world.submit(&long).await.expect_err("too long").class, Class::InvalidInput);
}

#[actix_web::test]
async fn a_task_that_fails_says_why_in_webhook_and_poll() {
    let mut world = World::new();
    for (class, expected) in [
        ("moderation", Class::Moderation),
        ("invalid_input", Class::InvalidInput),
        ("provider_error", Class::ProviderError),
    ] {
        let order = saying(a_song(), &format!("rain sim:fail={class}"));
        let taken = world.task(&order).await;
        let body = world.webhook().await;
        let News::Failed(failure) = world.read(TaskKind::Generate, &body).news else { panic!("{body}") };
        assert_eq!(failure.class, expected);
        let News::Failed(failure) = world.polled(&order, &taken.task).await else { panic!("not failed") };
        assert_eq!(failure.class, expected);
    }
}

#[actix_web::test]
async fn words_in_the_wish_count_beside_given_lyrics() {
    let world = World::new();
    let sung = Order { lyrics: Some("[Verse]\nrain".into()), ..saying(a_song(), "sim:fail=rate_limited") };
    assert_eq!(world.submit(&sung).await.expect_err("a refusal").class, Class::RateLimited);
}

#[actix_web::test]
async fn lost_webhooks_are_replaced_by_polls_and_double_ones_tell_the_same() {
    let mut world = World::new();
    let silent = saying(a_song(), "sim:lose");
    let taken = world.task(&silent).await;
    assert_eq!(clips(world.polled(&silent, &taken.task).await).len(), 2);

    let double = saying(a_song(), "sim:twice");
    world.task(&double).await;
    let mut bodies = Vec::new();
    for _ in 0..10 {
        bodies.push(world.webhook().await);
    }
    for body in &bodies {
        assert_eq!(bodies.iter().filter(|other| *other == body).count(), 2, "{body}");
    }
}

#[actix_web::test]
async fn a_wrong_key_calls_the_operator() {
    let options = Options { api_key: Some("another".into()), ..Options::default() };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
    let simulator = simulator::start(listener, options).expect("a simulator");
    let musicgpt = adapter(&format!("http://{}/musicgpt", simulator.address()));
    let failure = musicgpt.submit(&a_song(), "http://127.0.0.1:1/x").await.expect_err("a refusal");
    assert!(failure.operator && failure.class == Class::ProviderError, "{failure:?}");
}

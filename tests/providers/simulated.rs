//! The adapters of the providers that are polled or answer at once, against their simulated other side, over real
//! HTTP. What both sides got wrong in the same way the recorded traffic would show.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use songflight::asset::Assets;
use songflight::id::{CallKey, TaskId, fresh};
use songflight::provider::failure::{Arrived, Class, Failure};
use songflight::provider::minimax::{Keep, OutputFormat};
use songflight::provider::{Clip, Made, News, Order, Provider, SourceClip, Stage, Submitted, TaskKind, Work};
use songflight::simulator::{self, Latency, Options, Simulator};
use tokio::time::timeout;

use crate::conformance::REPLY_TO;
use crate::mureka::{clip, work};
use crate::suno::order;
use crate::{minimax, mureka};

/// Longer than anything here takes, so that only a fault is waited out.
const PATIENCE: Duration = Duration::from_secs(20);

/// A simulator and somebody who steers it.
struct Theatre {
    simulator: Simulator,
    origin: String,
    client: Client,
}

impl Theatre {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let latency = Latency { lyrics_ms: [5, 10], music_ms: [20, 40] };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let simulator = simulator::start(listener, Options { latency, ..options }).expect("a simulator");
        let origin = format!("http://{}", simulator.address());
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { simulator, origin, client }
    }

    fn url(&self, provider: &str) -> String {
        format!("{}/{provider}", self.origin)
    }

    async fn control(&self, change: Value) {
        let answer = self.client.post(format!("{}/control", self.origin)).json(&change).send().await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }

    async fn stats(&self) -> Value {
        let answer =
            self.client.get(format!("{}/control/stats", self.origin)).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    async fn file(&self, url: &str) -> Vec<u8> {
        let answer = self.client.get(url).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{url}");
        answer.bytes().await.expect("a file").to_vec()
    }

    async fn end(self) {
        self.simulator.stop().await;
    }
}

fn wish(text: &str) -> Order {
    Order { prompt: Some(text.into()), ..order(TaskKind::Generate) }
}

fn quiet(mut order: Order) -> Order {
    order.options.instrumental = true;
    order
}

/// Asks until the task has ended.
async fn outcome(provider: &impl Provider, order: &Order, task: &str) -> News {
    let ended = async {
        loop {
            match provider.poll(order, task).await.expect("an answer") {
                News::Working => tokio::task::yield_now().await,
                news => return news,
            }
        }
    };
    timeout(PATIENCE, ended).await.expect("an end in time")
}

async fn task(provider: &impl Provider, order: &Order) -> String {
    match provider.submit(order, REPLY_TO).await {
        Ok(Submitted::Task(taken)) => taken.task,
        other => panic!("{other:?}"),
    }
}

fn clips(news: News) -> Vec<Clip> {
    match news {
        News::Clips(Stage::Complete, clips) => clips,
        other => panic!("{other:?}"),
    }
}

fn is_wav(file: &[u8]) -> bool {
    file.starts_with(b"RIFF") && file.len() > 100_000
}

#[actix_web::test]
async fn mureka_makes_songs_that_can_be_heard() {
    let stage = Theatre::new();
    let mureka = mureka::adapter(&stage.url("mureka"));
    let lyrics = "[Verse]\nLanterns drift above the bay\n\n[Chorus]\nStay until the morning light";
    let sung = Order { lyrics: Some(lyrics.into()), variants: 3, ..wish("folk") };
    let mut ids = BTreeSet::new();
    for (order, songs, words) in [
        (sung, 3, Some(lyrics)),
        (quiet(wish("rain on tin")), 2, None),
        (
            Order {
                work: Work::Extend { of: clip(), continue_at_ms: None },
                lyrics: Some(lyrics.into()),
                ..wish("x")
            },
            1,
            Some(lyrics),
        ),
        (
            Order {
                lyrics: Some(lyrics.into()),
                ..work(Work::ReplaceSection { of: clip(), start_ms: 20_000, end_ms: 30_000 })
            },
            1,
            Some(lyrics),
        ),
    ] {
        let task = task(&mureka, &order).await;
        let clips = clips(outcome(&mureka, &order, &task).await);
        assert_eq!(clips.len(), songs);
        for clip in clips {
            assert_eq!(clip.lyrics.as_deref(), words);
            let file = stage.file(clip.audio_url.as_deref().expect("audio")).await;
            // 16 bit at 22.05 kHz.
            let millis = (file.len() - 44) as f64 / 2.0 / 22.05;
            assert!(is_wav(&file) && clip.duration_ms == Some(millis.round() as i64));
            assert!(ids.insert(clip.clip_id.expect("an id")), "no id comes again");
        }
    }
    let written = wish("a calm song about lanterns");
    let task = task(&mureka, &written).await;
    let clips = clips(outcome(&mureka, &written, &task).await);
    assert!(clips[0].lyrics.as_deref().is_some_and(|words| words.starts_with("[Verse]")));
    let lost = mureka.poll(&quiet(wish("x")), &task).await.expect_err("a song is no instrumental");
    assert_eq!(lost.code.as_deref(), Some("404"));
    assert_eq!(stage.stats().await["callbacks_lost"], 0, "there are none to lose");
    stage.end().await;
}

#[actix_web::test]
async fn mureka_answers_at_once_with_texts_and_stems() {
    let stage = Theatre::new();
    let mureka = mureka::adapter(&stage.url("mureka"));
    let mut texts = Vec::new();
    for _ in 0..2 {
        let order =
            Order { prompt: Some("lanterns over the bay sim:slow=2s".into()), ..order(TaskKind::Lyrics) };
        match mureka.submit(&order, REPLY_TO).await {
            Ok(Submitted::Done(News::Lyrics(mut told))) if told.len() == 1 => texts.push(told.remove(0).text),
            other => panic!("{other:?}"),
        }
    }
    assert_ne!(texts[0], texts[1], "each call writes its own");
    assert!(texts[0].contains("[sim:slow=2000ms]"), "what is asked of the music goes on to it");

    let of = SourceClip { provider: "suno".into(), ..clip() };
    let stems = mureka.submit(&work(Work::Stems { of }), REPLY_TO).await;
    let Ok(Submitted::Done(News::Made(Made::Stems { stems }))) = stems else { panic!("{stems:?}") };
    assert_eq!(stems[0].name, "archive");
    let archive = stage.file(&stems[0].url).await;
    assert!(archive.starts_with(b"PK\x03\x04") && archive.len() > 400_000);
    stage.end().await;
}

#[actix_web::test]
async fn minimax_answers_with_a_song_as_a_url_or_in_hex() {
    let stage = Theatre::new();
    let by_url = minimax::adapter(&stage.url("minimax"));
    let clip = song(&by_url, &quiet(wish("rain on tin"))).await.expect("a song");
    let file = stage.file(clip.audio_url.as_deref().expect("audio")).await;
    assert!(is_wav(&file));

    let home = std::env::temp_dir().join(format!("songflight-minimax-{}", std::process::id()));
    let assets = Assets::new(&home, "https://songs.example.com");
    let keep: Keep = Arc::new(move |file, media_type| assets.keep(&file, media_type));
    let in_hex = minimax::asking_for(OutputFormat::Hex, &stage.url("minimax"), keep);
    let clip =
        song(&in_hex, &Order { lyrics: Some("la la la la".into()), ..wish("x") }).await.expect("a song");
    let url = clip.audio_url.expect("audio");
    let name = url.strip_prefix("https://songs.example.com/assets/").expect("a url of ours");
    let file = std::fs::read(home.join(name)).expect("a file");
    let millis = (file.len() - 44) as f64 / 2.0 / 22.05;
    assert!(name.ends_with(".wav") && is_wav(&file) && clip.duration_ms == Some(millis.round() as i64));
    std::fs::remove_dir_all(home).expect("the folder");

    let cover = song(&by_url, &work(Work::Cover { of: crate::mureka::clip() })).await;
    assert!(cover.is_ok(), "{cover:?}");
    stage.end().await;
}

async fn song(provider: &impl Provider, order: &Order) -> Result<Clip, Failure> {
    match provider.submit(order, REPLY_TO).await? {
        Submitted::Done(news) => Ok(clips(news).remove(0)),
        Submitted::Task(task) => panic!("{task:?}"),
    }
}

/// How a song ends at Mureka, whether it is refused at the door or fails later.
async fn failed_at_mureka(stage: &Theatre, order: &Order) -> Failure {
    let mureka = mureka::adapter(&stage.url("mureka"));
    match mureka.submit(order, REPLY_TO).await {
        Err(failure) => failure,
        Ok(Submitted::Task(taken)) => match outcome(&mureka, order, &taken.task).await {
            News::Failed(failure) => failure,
            other => panic!("{other:?}"),
        },
        Ok(Submitted::Done(news)) => panic!("{news:?}"),
    }
}

#[actix_web::test]
async fn every_failure_that_can_be_asked_for_has_its_class() {
    let stage = Theatre::new();
    let minimax = minimax::adapter(&stage.url("minimax"));
    for class in [
        Class::Moderation,
        Class::InvalidInput,
        Class::ProviderError,
        Class::InsufficientProviderCredits,
        Class::RateLimited,
    ] {
        let words = format!("rain sim:fail={}@9", class.as_str());
        assert_eq!(failed_at_mureka(&stage, &wish(&words)).await.class, class, "mureka");
        let lyrics = Order { prompt: Some(words.clone()), ..order(TaskKind::Lyrics) };
        assert_eq!(failed_at_mureka(&stage, &lyrics).await.class, class, "mureka's lyrics");
        let failure = song(&minimax, &wish(&words)).await.expect_err("a failure");
        assert_eq!(failure.class, class, "minimax");
        assert_eq!(failure.arrived, Arrived::No);
    }
    let timed_out = song(&minimax, &wish("sim:fail=timeout")).await.expect_err("a failure");
    assert_eq!((timed_out.class, timed_out.code.as_deref()), (Class::Timeout, Some("1001")));
    for failure in [
        failed_at_mureka(&stage, &wish("sim:fail=network")).await,
        song(&minimax, &wish("sim:fail=network")).await.expect_err("a failure"),
    ] {
        assert!(matches!(failure.class, Class::Network | Class::ProviderError), "{failure:?}");
        assert_eq!(failure.arrived, Arrived::Maybe);
    }
    stage.end().await;
}

#[actix_web::test]
async fn limits_faults_and_being_down_are_told_as_each_provider_does() {
    let stage = Theatre::new();
    let minimax = minimax::adapter(&stage.url("minimax"));
    stage.control(json!({"http_500": 1.0})).await;
    for failure in
        [failed_at_mureka(&stage, &wish("x")).await, song(&minimax, &wish("x")).await.expect_err("a failure")]
    {
        assert_eq!((failure.class, failure.arrived), (Class::ProviderError, Arrived::Maybe));
    }
    stage.control(json!({"http_500": 0.0, "rate_limit": "1/1h"})).await;
    song(&minimax, &wish("x")).await.expect("the first is let in");
    for failure in
        [failed_at_mureka(&stage, &wish("x")).await, song(&minimax, &wish("x")).await.expect_err("a failure")]
    {
        assert_eq!((failure.class, failure.arrived), (Class::RateLimited, Arrived::No));
    }
    stage.control(json!({"rate_limit": "off", "down": true})).await;
    for failure in
        [failed_at_mureka(&stage, &wish("x")).await, song(&minimax, &wish("x")).await.expect_err("a failure")]
    {
        assert_eq!((failure.class, failure.code.as_deref()), (Class::ProviderError, Some("503")));
    }
    stage.end().await;
}

#[actix_web::test]
async fn an_answer_that_is_cut_off_leaves_an_order_that_was_taken() {
    let stage = Theatre::new();
    let minimax = minimax::adapter(&stage.url("minimax"));
    stage.control(json!({"drop_answer": 1.0})).await;
    for failure in
        [failed_at_mureka(&stage, &wish("x")).await, song(&minimax, &wish("x")).await.expect_err("a failure")]
    {
        assert_eq!((failure.class, failure.arrived), (Class::Network, Arrived::Maybe), "{failure:?}");
    }
    let stats = stage.stats().await;
    assert_eq!((&stats["accepted"], &stats["duplicates_of_intent"]), (&json!(2), &json!(0)));

    // Whoever orders the same once more is seen.
    stage.control(json!({"drop_answer": 0.0})).await;
    let again = Order { key: CallKey { task: TaskId(fresh()), call: 0, attempt: 0 }, ..wish("x") };
    for _ in 0..2 {
        song(&minimax, &again).await.expect("a song");
    }
    assert_eq!(stage.stats().await["duplicates_of_intent"], 1);
    stage.end().await;
}

#[actix_web::test]
async fn a_key_is_asked_for_where_one_is_set() {
    let stage = Theatre::with(Options { api_key: Some("another".into()), ..Options::default() });
    let minimax = minimax::adapter(&stage.url("minimax"));
    for failure in
        [failed_at_mureka(&stage, &wish("x")).await, song(&minimax, &wish("x")).await.expect_err("a failure")]
    {
        assert!(failure.operator && failure.class == Class::ProviderError, "{failure:?}");
    }
    stage.end().await;
    let stage =
        Theatre::with(Options { api_key: Some(crate::conformance::KEY.into()), ..Options::default() });
    song(&minimax::adapter(&stage.url("minimax")), &wish("x")).await.expect("the right key");
    stage.end().await;
}

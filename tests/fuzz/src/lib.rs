//! What the targets share: orders of every kind, the doors that a provider's words come in by, and what must be
//! true of everything that is made of them.
//!
//! Not here: what an answer should be understood as (`tests/providers/conformance.rs`).

use reqwest::StatusCode;
use songflight::fuzzing;
use songflight::id::{CallKey, SongId, TaskId, fresh};
use songflight::provider::failure::{Arrived, Failure, MESSAGE_CHARS_MAX};
use songflight::provider::http::{Http, Timeouts};
use songflight::provider::{
    Clip, Made, MusicOptions, News, Order, Provider, SourceClip, Submitted, TaskKind, Work,
};

/// The key of every adapter here.
pub const KEY: &str = "the-key-that-nobody-may-read";
/// Nobody is there, and nobody is asked.
pub const NOWHERE: &str = "http://127.0.0.1:1";
const REPLY_TO: &str = "https://app.example.com/cb/8f1c0f0d4e6b4a6c9d3e";
const STATUSES: [u16; 16] = [200, 200, 200, 201, 204, 302, 400, 401, 402, 404, 408, 413, 422, 429, 451, 503];

pub fn http() -> Http {
    Http::new(NOWHERE, Timeouts::default()).expect("clients for this machine")
}

/// Takes an input apart and sends it through its door. The first byte says which door and of what kind the order
/// is, the second the status; the rest is the body.
pub fn provider(provider: &dyn Provider, input: &[u8]) {
    let [door, status, body @ ..] = input else { return };
    let kind = TaskKind::ALL[usize::from(door / 3) % TaskKind::ALL.len()];
    let order = order(provider.capabilities().name, kind);
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    match door % 3 {
        0 => called_back(provider, kind, body),
        1 => {
            let outcome = answered(status, body, provider.poll(&order, "t1"));
            outcome.as_ref().map_or_else(failure, news);
        }
        _ => match answered(status, body, provider.submit(&order, REPLY_TO)) {
            Ok(Submitted::Task(taken)) => {
                id(&taken.task);
                taken.clip_ids.iter().for_each(|clip| id(clip));
            }
            Ok(Submitted::Done(done)) => {
                assert!(done != News::Working, "what is done is at work");
                news(&done);
            }
            Err(failed) => {
                // A refusal before anything was sent leaves the answer unread.
                failure(&failed);
                let refused = (300..500).contains(&status) && failed.arrived == Arrived::Maybe;
                assert!(!refused, "HTTP {status} is a refusal: {failed:?}");
            }
        },
    }
}

fn called_back(provider: &dyn Provider, kind: TaskKind, body: &[u8]) {
    if let Ok(callback) = provider.read(kind, body) {
        if let Some(task) = &callback.provider_task {
            id(task);
        }
        news(&callback.news);
    }
}

fn answered<T>(status: u16, body: &[u8], call: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    }
    fuzzing::answer_with(StatusCode::from_u16(status).expect("one of the list"), body);
    RUNTIME.with(|runtime| runtime.block_on(call))
}

fn order(maker: &str, kind: TaskKind) -> Order {
    let of = SourceClip {
        song: SongId(fresh()),
        variant_number: 1,
        provider: maker.into(),
        provider_task: Some("t0".into()),
        clip_id: Some("c0".into()),
        audio_url: Some("https://files.example.com/a.mp3".into()),
        duration_ms: Some(180_000),
        model: None,
        title: Some("Harbour Lights".into()),
        lyrics: Some("[Verse]\nLanterns drift above the bay".into()),
        style_tags: vec!["folk".into()],
        instrumental: false,
    };
    let work = match kind {
        TaskKind::Lyrics => Work::Lyrics,
        TaskKind::Generate => Work::Generate,
        TaskKind::Extend => Work::Extend { of, continue_at_ms: Some(60_000) },
        TaskKind::ReplaceSection => Work::ReplaceSection { of, start_ms: 30_000, end_ms: 45_000 },
        TaskKind::Merge => Work::Merge { of: vec![of.clone(), of] },
        TaskKind::Cover => Work::Cover { of },
        TaskKind::Stems => Work::Stems { of },
        TaskKind::Persona => Work::Persona { of, name: "Mira".into(), description: "warm".into() },
        TaskKind::Video => Work::Video { of },
    };
    Order {
        key: CallKey { task: TaskId(fresh()), call: 0, attempt: 0 },
        work,
        title: None,
        prompt: Some("a calm folk song".into()),
        lyrics: Some("[Verse]\nEvery wave has words to say".into()),
        options: MusicOptions::default(),
        variants: 2,
    }
}

// --- what must be true ------------------------------------------------------------------------------

fn news(news: &News) {
    match news {
        News::Working => {}
        News::Lyrics(texts) => texts.iter().for_each(|lyrics| {
            text(&lyrics.text);
            lyrics.title.iter().for_each(|title| some_text(title));
        }),
        News::Clips(_, clips) => {
            assert!(clips.len() <= 1000, "{} clips of one call", clips.len());
            clips.iter().for_each(clip);
        }
        News::Made(made) => result(made),
        News::Failed(failed) => failure(failed),
    }
}

fn clip(clip: &Clip) {
    let Clip { clip_id, title, lyrics, duration_ms, stream_url, audio_url, image_url, video_url, .. } = clip;
    clip_id.iter().for_each(|clip| id(clip));
    title.iter().chain(lyrics).for_each(|words| some_text(words));
    [stream_url, audio_url, image_url, video_url, &clip.fallback_url]
        .into_iter()
        .flatten()
        .for_each(|link| url(link));
    assert!(duration_ms.is_none_or(|ms| (1..=86_400_000).contains(&ms)), "{duration_ms:?}");
}

fn result(made: &Made) {
    match made {
        Made::Stems { stems } => {
            assert!(!stems.is_empty(), "stems that are none");
            for stem in stems {
                id(&stem.name);
                url(&stem.url);
            }
        }
        Made::Persona { persona_id, name, description } => {
            id(persona_id);
            name.iter().chain(description).for_each(|words| some_text(words));
        }
        Made::Video { video_url } => url(video_url),
    }
}

fn failure(failure: &Failure) {
    let Failure { message, code, .. } = failure;
    assert!(message.chars().count() <= MESSAGE_CHARS_MAX, "a long message");
    assert!(!message.contains('\0'), "Postgres stores no NUL");
    assert!(!message.contains(KEY), "the key is told");
    let short = |code: &String| code.chars().count() <= MESSAGE_CHARS_MAX && !code.contains('\0');
    assert!(code.as_ref().is_none_or(short), "{code:?}");
    assert!(!failure.user_text().is_empty());
}

fn id(text: &str) {
    let fits = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(fits, "no id: {text:?}");
}

fn some_text(words: &str) {
    assert!(!words.trim().is_empty(), "a text that says nothing");
    text(words);
}

fn text(words: &str) {
    assert!(!words.contains('\0') && words.chars().count() <= 20_000, "no text to keep");
}

fn url(link: &str) {
    let known = link.len() <= 2048 && !link.chars().any(|c| c.is_whitespace() || c.is_control());
    let parsed = reqwest::Url::parse(link);
    let web = parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    assert!(known && web, "no url: {link:?}");
}

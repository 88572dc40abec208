//! From the body of `POST /v1/songs` to a song that may be created: everything is checked here, before
//! anything is charged (SEC-2, PROV-1). Pure, but for the ids it draws.

use serde_json::json;

use super::Api;
use super::problem::{FieldError, Kind, Problem};
use super::shape::{Body, Field, FieldKind, Shape, error_at, field};
use crate::credit::Credits;
use crate::id::{self, ShareToken, SongId, TaskId, UserId};
use crate::provider::{Capabilities, Order, Providers, Unsupported, unsupported};
use crate::song::parts::{MusicOptions, TaskKind, VocalGender, Work};
use crate::song::phase::{Phase, Song, VARIANTS_MAX, call_key};
use crate::song::wish::{Alternative, Calls, Mode, Prices, Wish};
use crate::time::Time;

pub const PROMPT_CHARS_MAX: usize = 3000;
pub const LYRICS_CHARS_MAX: usize = 5000;
pub const TITLE_CHARS_MAX: usize = 100;
pub(super) const METADATA_BYTES_MAX: usize = 16 * 1024;

pub(super) const PROMPT: FieldKind = FieldKind::Text { max: PROMPT_CHARS_MAX };
pub(super) const LYRICS: FieldKind = FieldKind::Text { max: LYRICS_CHARS_MAX };
const WEIGHT: FieldKind = FieldKind::Number { min: 0.0, max: 1.0 };
/// Whom one may ask for, those included that are not configured here: bodies read the same everywhere.
pub const ASKED_FOR: &[&str] = &["auto", "suno", "mureka", "minimax", "musicgpt"];
pub(super) const PROVIDER: FieldKind = FieldKind::Word(ASKED_FOR);
pub(super) const TAGS: FieldKind = FieldKind::Texts { max: 20, each_max: 100 };

pub const CREATE: Shape = &[
    field(
        "mode",
        FieldKind::Word(&["lyrics_first", "music"]),
        "`lyrics_first` writes lyrics to choose from, then the music; `music` goes straight to the music.",
    )
    .required(),
    field("title", FieldKind::Text { max: TITLE_CHARS_MAX }, "Of the song; else the lyrics' or the clip's."),
    field("prompt", PROMPT, "What the song is about. Required, but with `lyrics` in mode `music`."),
    field("lyrics", LYRICS, "Your own words, sung as they are; mode `music` only."),
    field("style_tags", TAGS, "How it sounds: `waltz`, `piano` …"),
    field("instrumental", FieldKind::Flag, "Nobody sings; mode `music` only."),
    field("provider", PROVIDER, "Who makes it; `auto` (default) chooses one that can."),
    field("model", FieldKind::Text { max: 50 }, "The provider's model; default: the provider's."),
    field("negative_tags", TAGS, "What it must not sound like."),
    field("vocal_gender", FieldKind::Word(&["f", "m"]), "The voice."),
    field("style_weight", WEIGHT, "How strictly the style is followed."),
    field("weirdness", WEIGHT, "How far it may stray."),
    field("audio_weight", WEIGHT, "How much the reference audio counts."),
    field("reference_audio_url", FieldKind::Url, "A recording to follow."),
    field("persona_id", FieldKind::Text { max: 100 }, "The provider's persona."),
    field(
        "variants",
        FieldKind::Integer { min: 1, max: VARIANTS_MAX as i64 },
        "How many variants at least; default 2. A provider that makes two a call (`suno`, `musicgpt`) brings an even \
         number, 5 at most: `1` gives 2, `3` gives 4. Up to two cost the price of one song, 3 or 4 twice, 5 three times \
         as much.",
    ),
    field("preview", FieldKind::Flag, "To try: charges nothing, has one variant, a few a day."),
    field(
        "on_busy",
        FieldKind::Word(&["wait", "refuse"]),
        "What to do when your plan's songs at once are used up: `wait` (default) or `refuse`.",
    ),
    field("metadata", FieldKind::Object { bytes_max: METADATA_BYTES_MAX }, "Yours; comes back unchanged."),
];

pub const CHOOSE: Shape = &[
    field("variant_index", FieldKind::Integer { min: 0, max: 1000 }, "The text to sing."),
    field("text", LYRICS, "Your own or edited text, in place of `variant_index`."),
    field("title", FieldKind::Text { max: TITLE_CHARS_MAX }, "The title of your text."),
];

pub const RETRY: Shape = &[
    field("prompt", PROMPT, "Other words for the prompt; needed after moderation."),
    field("lyrics", LYRICS, "Other lyrics."),
];

pub const SELECT: Shape = &[Field { required: true, ..field("selected", FieldKind::Flag, "The favourite.") }];

/// A song as it will be created, and the hash that tells whether a replay asks for the same (CRED-5).
///
/// # Errors
/// Every wrong field; or what no provider can do.
pub fn song(api: &Api, user: &UserId, body: &Body, now: Time) -> Result<(Song, [u8; 32]), Problem> {
    let errors = contradictions(body);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let mode = if body.text("mode") == Some("music") { Mode::Music } else { Mode::LyricsFirst };
    let mut wish = wish(body, mode);
    if wish.preview {
        wish.variants = 1;
    }
    settle(api, body.text("provider"), &mut wish)?;
    let metadata = body.object("metadata").cloned().unwrap_or_else(|| json!({}));
    Ok((pending(user, wish, metadata, now), hash(body)))
}

/// A `generate` is up to so many variants; more cost as much again.
const VARIANTS_PER_PRICE: u8 = 2;

/// Settles who makes it, with which model, in how many calls, and what it costs. What is made of a clip has the model
/// that its provider finds fit for that: an extension its source's, say.
///
/// # Errors
/// What nobody can do who was asked for.
pub(super) fn settle(api: &Api, asked: Option<&str>, wish: &mut Wish) -> Result<(), Problem> {
    let asked = asked.unwrap_or("auto");
    let able = choose_provider(&api.world.providers, asked, wish)?;
    let Some((first, others)) = able.split_first() else { return Err(Problem::unavailable()) };
    if wish.variants == 0 {
        wish.variants = first.variants;
    }
    let variants = wish.variants;
    let calls =
        |able: &Capabilities| Calls { lyrics: able.lyrics_calls(), music: music_calls(able, wish, variants) };
    let open = wish.options.model.is_none() && wish.work == Work::Generate;
    let model = |able: &Capabilities| open.then(|| able.default_model().to_owned());
    let other = |able: &&Capabilities| Alternative {
        provider: able.name.to_owned(),
        calls: calls(able),
        model: model(able),
    };
    let (mine, alternatives) = (calls(first), others.iter().map(other).collect());
    if let Some(model) = model(first) {
        wish.options.model = Some(model);
    }
    wish.provider = first.name.to_owned();
    wish.calls = mine;
    wish.alternatives = alternatives;
    if !wish.preview {
        let times = i64::from(variants.div_ceil(VARIANTS_PER_PRICE).max(1));
        let music = Credits::from_thousandths(api.price(wish.work.kind()).thousandths() * times);
        wish.prices = Prices { lyrics: api.price(TaskKind::Lyrics), music };
    }
    Ok(())
}

/// A variation has a call of its own, with a style of its own (CRED-8).
fn music_calls(able: &Capabilities, wish: &Wish, variants: u8) -> u8 {
    if wish.variations.is_empty() { able.music_calls(variants) } else { variants }
}

/// What the shape alone cannot say.
fn contradictions(body: &Body) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let lyrics_first = body.text("mode") == Some("lyrics_first");
    let instrumental = body.flag("instrumental") == Some(true);
    if lyrics_first && body.text("lyrics").is_some() {
        errors.push(error_at("lyrics", "mode lyrics_first writes the lyrics; use mode music for your own"));
    }
    if lyrics_first && instrumental {
        errors.push(error_at("instrumental", "mode lyrics_first is for songs that are sung"));
    }
    if !lyrics_first && instrumental && body.text("lyrics").is_some() {
        errors.push(error_at("lyrics", "an instrumental has none"));
    }
    if body.flag("preview") == Some(true) && body.integer("variants").is_some_and(|asked| asked > 1) {
        errors.push(error_at("variants", "a preview has one"));
    }
    if body.text("prompt").is_none() && (lyrics_first || body.text("lyrics").is_none()) {
        let detail = if lyrics_first { "is required" } else { "is required, unless there are lyrics" };
        errors.push(error_at("prompt", detail));
    }
    errors
}

fn wish(body: &Body, mode: Mode) -> Wish {
    Wish {
        mode,
        title: body.owned("title"),
        prompt: body.owned("prompt"),
        lyrics: body.owned("lyrics"),
        options: options(body),
        variants: body.integer("variants").and_then(|asked| u8::try_from(asked).ok()).unwrap_or(0),
        preview: body.flag("preview").unwrap_or(false),
        ..bare_wish()
    }
}

/// A wish for nothing yet, with what only we can give it.
pub(super) fn bare_wish() -> Wish {
    Wish {
        mode: Mode::Music,
        title: None,
        prompt: None,
        lyrics: None,
        options: MusicOptions::default(),
        provider: String::new(),
        work: Work::Generate,
        parent_ids: Vec::new(),
        variants: 0,
        variations: Vec::new(),
        calls: Calls { lyrics: 1, music: 1 },
        preview: false,
        prices: Prices { lyrics: Credits::ZERO, music: Credits::ZERO },
        alternatives: Vec::new(),
        left: Vec::new(),
        plan: None,
        share_tokens: (0..VARIANTS_MAX).map(|_| ShareToken(id::secret())).collect(),
    }
}

pub(super) fn options(body: &Body) -> MusicOptions {
    MusicOptions {
        style_tags: body.texts("style_tags"),
        instrumental: body.flag("instrumental").unwrap_or(false),
        model: body.owned("model"),
        negative_tags: body.texts("negative_tags"),
        vocal_gender: match body.text("vocal_gender") {
            Some("f") => Some(VocalGender::Female),
            Some(_) => Some(VocalGender::Male),
            None => None,
        },
        style_weight: body.number("style_weight"),
        weirdness: body.number("weirdness"),
        audio_weight: body.number("audio_weight"),
        reference_audio_url: body.owned("reference_audio_url"),
        persona_id: body.owned("persona_id"),
    }
}

/// The providers that can do all of it, best first; of those only the one that was named (PROV-12). Never empty.
pub(super) fn choose_provider<'a>(
    providers: &'a Providers,
    asked: &str,
    wish: &Wish,
) -> Result<Vec<&'a Capabilities>, Problem> {
    let cost = |able: &Capabilities| {
        let calls = u32::from(music_calls(able, wish, wish.variants.max(1)));
        lacking(able, wish).is_empty().then(|| able.cost_usd_milli.saturating_mul(calls))
    };
    let wanted = |name: &str| asked == "auto" || name == asked;
    let able: Vec<&Capabilities> = providers
        .ranked(wish.first_task(), cost)
        .into_iter()
        .map(|member| member.provider.capabilities())
        .filter(|able| wanted(able.name))
        .collect();
    if !able.is_empty() {
        return Ok(able);
    }
    let asked_for = providers.members().map(|member| member.provider.capabilities());
    let reasons: Vec<(&'static str, Vec<Unsupported>)> =
        asked_for.filter(|able| wanted(able.name)).map(|able| (able.name, lacking(able, wish))).collect();
    if reasons.is_empty() {
        let there: Vec<_> = providers.names().collect();
        let detail = format!("not configured here; there is {}", there.join(", "));
        return Err(Problem::invalid_at("/provider", detail));
    }
    Err(refusal(providers, asked, wish, &reasons))
}

/// In the place of words that are not written yet; nobody finds them too few.
const SOME_WORDS: &str = "… … … … … …";

/// What this provider lacks for the whole way of the song.
pub fn lacking(able: &Capabilities, wish: &Wish) -> Vec<Unsupported> {
    let calls = 0..wish.variations.len().max(1);
    let order = |call: usize, work: &Work, lyrics: Option<&str>| -> Order {
        let call = u8::try_from(call).unwrap_or(u8::MAX);
        let key = crate::id::CallKey { task: TaskId(uuid::Uuid::nil()), call, attempt: 0 };
        wish.order(key, work, wish.title.as_deref(), lyrics)
    };
    let mut lacking = match wish.mode {
        // The words are not known yet; whatever is chosen will be sung as it is.
        Mode::LyricsFirst => {
            let mut lacking = unsupported(able, &order(0, &Work::Lyrics, None));
            // The prompt is for the lyrics; beside them it goes along as far as there is room.
            let music = Order { prompt: None, ..order(0, &wish.work, Some(SOME_WORDS)) };
            lacking.extend(unsupported(able, &music));
            lacking
        }
        Mode::Music => calls
            .flat_map(|call| unsupported(able, &order(call, &wish.work, wish.lyrics.as_deref())))
            .collect(),
    };
    lacking.dedup();
    lacking
}

/// What this provider lacks for the calls that a song has before it, with the words that it has by now.
pub(super) fn still_lacking(able: &Capabilities, song: &Song) -> Vec<Unsupported> {
    match &song.phase {
        Phase::Lyrics(_) => lacking(able, &song.wish),
        Phase::Music(run) => {
            let keys = run.calls.iter().enumerate();
            let keys = keys.map(|(index, call)| call_key(song.head.task, index, call));
            keys.flat_map(|key| unsupported(able, &song.order(key))).collect()
        }
        Phase::LyricsReady
        | Phase::Ready
        | Phase::Complete
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => Vec::new(),
    }
}

/// Texts that are too long are wrong input where the provider was named; the rest is what it cannot do.
fn refusal(
    providers: &Providers,
    asked: &str,
    wish: &Wish,
    reasons: &[(&'static str, Vec<Unsupported>)],
) -> Problem {
    const TEXTS: [&str; 4] = ["title", "lyrics", "style_tags", "prompt"];
    let all: Vec<&Unsupported> = reasons.iter().flat_map(|(_, lacking)| lacking).collect();
    let errors = all.iter().map(|one| error_at(one.field, one.why.clone())).collect();
    if reasons.len() == 1 && all.iter().all(|lacking| TEXTS.contains(&lacking.field)) {
        return Problem::invalid(errors);
    }
    unsupported_by(asked, &able(providers, std::slice::from_ref(wish)), errors)
}

/// The providers that can make all of these songs.
pub(super) fn able(providers: &Providers, wishes: &[Wish]) -> Vec<&'static str> {
    let able = providers.members().map(|member| member.provider.capabilities());
    able.filter(|able| wishes.iter().all(|wish| lacking(able, wish).is_empty()))
        .map(|able| able.name)
        .collect()
}

/// What nobody can do who was asked, and who else can.
pub(super) fn unsupported_by(asked: &str, able: &[&str], errors: Vec<FieldError>) -> Problem {
    let others: Vec<&str> = able.iter().copied().filter(|name| *name != asked).collect();
    let detail = match others.as_slice() {
        [] => "No provider that is configured here can do this.".to_owned(),
        some => format!("This can be done by {}.", some.join(", ")),
    };
    Problem::new(Kind::UnsupportedByProvider, detail).with_errors(errors).with("providers", json!(others))
}

/// A song at the very start of its life.
pub(super) fn pending(user: &UserId, wish: Wish, metadata: serde_json::Value, now: Time) -> Song {
    Song::pending(SongId(id::fresh()), user.clone(), wish, metadata, TaskId(id::fresh()), now)
}

/// Tells whether two requests ask for the same.
pub(super) fn hash(body: &Body) -> [u8; 32] {
    digest(body.canonical().as_bytes())
}

/// The same, of what is asked for partly by the path.
pub(super) fn hash_of(asked: &serde_json::Value) -> [u8; 32] {
    digest(asked.to_string().as_bytes())
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).into()
}

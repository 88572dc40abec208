//! Further tasks on finished songs (PROV-2): what makes a child song (`extend`, `replace-section`, `cover`, `merge`); what
//! adds to the song itself is in `additions`.
//!
//! Not here: who can do what (`provider::unsupported`, asked by `wishes::settle`), what a task does to a song
//! (`song::step`).

pub(super) mod additions;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::creation::Asked;
use super::problem::{Kind, Problem};
use super::shape::{Body, Field, FieldKind, Shape, error_at, field};
use super::songs::{as_before, begin, idempotency_key, own};
use super::who::{Creator, Who};
use super::wishes::{self, LYRICS, METADATA_BYTES_MAX, PROMPT, TAGS, TITLE_CHARS_MAX};
use super::{Api, Keyed, Operation, Raw, body, resource, song_id};
use crate::id::SongId;
use crate::song::parts::{MusicOptions, SourceClip, TaskKind, Work};
use crate::song::phase::{Phase, Song, Variant};
use crate::song::wish::{Mode, Wish};
use crate::store::{self, songs};

pub fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(resource("/v1/songs/merge").route(web::post().to(merge)))
        .service(resource("/v1/songs/{id}/extend").route(web::post().to(extend)))
        .service(resource("/v1/songs/{id}/replace-section").route(web::post().to(replace_section)))
        .service(resource("/v1/songs/{id}/cover").route(web::post().to(cover)))
        .configure(additions::routes);
}

/// A song that is merged is made of so many at most.
const MERGED_MAX: usize = 10;
/// A song lasts no longer than this, in seconds.
const SECONDS_MAX: f64 = 3600.0;

const VARIANT: Field = field(
    "variant_number",
    FieldKind::Integer { min: 1, max: 5 },
    "Which variant; default: the favourite, else the first that can be played.",
);
const PROVIDER: Field =
    field("provider", wishes::PROVIDER, "Who does it; `auto` (default) prefers the one that made the song.");
const METADATA: Field =
    field("metadata", FieldKind::Object { bytes_max: METADATA_BYTES_MAX }, "Yours; comes back unchanged.");
const TITLE: Field =
    field("title", FieldKind::Text { max: TITLE_CHARS_MAX }, "Of the new song; default: the old one's.");
const STYLE: Field = field("style_tags", TAGS, "How it sounds; default: as the song does.");
const SECOND: FieldKind = FieldKind::Number { min: 0.0, max: SECONDS_MAX };

const EXTEND: Shape = &[
    VARIANT,
    field("continue_at_s", SECOND, "From which second on; default: the end."),
    field("prompt", PROMPT, "What is to follow."),
    field("lyrics", LYRICS, "The words that are to follow."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const REPLACE_SECTION: Shape = &[
    VARIANT,
    field("start_s", SECOND, "The first second that is made anew.").required(),
    field("end_s", SECOND, "Where the old goes on.").required(),
    field("prompt", PROMPT, "What is to be there."),
    field("lyrics", LYRICS, "The words that are to be sung there."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const COVER: Shape = &[
    VARIANT,
    field("prompt", PROMPT, "How it is to be."),
    field("lyrics", LYRICS, "Other words; default: the song's own."),
    STYLE,
    TITLE,
    PROVIDER,
    METADATA,
];
const MERGE: Shape = &[
    field(
        "song_ids",
        FieldKind::Texts { max: MERGED_MAX, each_max: 36 },
        "Two songs or more, in their order.",
    )
    .required(),
    TITLE,
    PROVIDER,
    METADATA,
];
// --- children -------------------------------------------------------------------------------------

async fn extend(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(EXTEND, &raw.0)?;
    let wanted = Wanted::read(&request, TaskKind::Extend, vec![song_id(&path)?], body)?;
    wanted.child_of_one(&api, &who, extension).await
}

fn extension(body: &Body, of: SourceClip) -> Result<Work, Problem> {
    let continue_at_ms = body.millis("continue_at_s");
    match (continue_at_ms, of.duration_ms) {
        (Some(at), Some(long)) if !(1..=long).contains(&at) => {
            Err(Problem::invalid_at("/continue_at_s", within(long)))
        }
        _ => Ok(Work::Extend { of, continue_at_ms }),
    }
}

async fn replace_section(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(REPLACE_SECTION, &raw.0)?;
    let wanted = Wanted::read(&request, TaskKind::ReplaceSection, vec![song_id(&path)?], body)?;
    wanted.child_of_one(&api, &who, replacement).await
}

fn replacement(body: &Body, of: SourceClip) -> Result<Work, Problem> {
    let (start_ms, end_ms) =
        (body.millis("start_s").unwrap_or_default(), body.millis("end_s").unwrap_or_default());
    match of.duration_ms {
        _ if start_ms >= end_ms => Err(Problem::invalid_at("/end_s", "must be after `start_s`")),
        Some(long) if end_ms > long => Err(Problem::invalid_at("/end_s", within(long))),
        _ => Ok(Work::ReplaceSection { of, start_ms, end_ms }),
    }
}

async fn cover(
    api: web::Data<Api>,
    Creator(who): Creator,
    path: web::Path<String>,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(COVER, &raw.0)?;
    let wanted = Wanted::read(&request, TaskKind::Cover, vec![song_id(&path)?], body)?;
    wanted.child_of_one(&api, &who, |_, of| Ok(Work::Cover { of })).await
}

async fn merge(
    api: web::Data<Api>,
    Creator(who): Creator,
    request: HttpRequest,
    raw: Raw,
) -> Result<HttpResponse, Problem> {
    let body = body(MERGE, &raw.0)?;
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    for (index, id) in body.texts("song_ids").iter().enumerate() {
        match id.parse::<SongId>() {
            Ok(id) => ids.push(id),
            Err(_) => errors.push(error_at_index(index, "is not the id of a song")),
        }
    }
    if errors.is_empty() && ids.len() < 2 {
        errors.push(error_at("song_ids", "two songs or more are merged"));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let wanted = Wanted::read(&request, TaskKind::Merge, ids, body)?;
    let child = async {
        let (mut parents, mut errors) = (Vec::new(), Vec::new());
        for (index, id) in wanted.of.iter().enumerate() {
            match own(&api, &who, *id).await {
                Ok(parent) => parents.push(parent),
                Err(problem) if problem.kind() == Kind::NotFound => {
                    errors.push(error_at_index(index, "there is no such song"));
                }
                Err(problem) => return Err(problem),
            }
        }
        if !errors.is_empty() {
            return Err(Problem::not_found().with_errors(errors));
        }
        let of = parents.iter().map(|parent| source(parent, &wanted.body)).collect::<Result<Vec<_>, _>>()?;
        wanted.child(&api, &who, &parents[0], Work::Merge { of }).await
    };
    wanted.or_as_before(&api, &who, child.await).await
}

fn error_at_index(index: usize, detail: &str) -> super::problem::FieldError {
    super::problem::FieldError { pointer: format!("/song_ids/{index}"), detail: detail.to_owned() }
}

fn within(long_ms: i64) -> String {
    format!("must be within the {}.{:03} s of the clip", long_ms / 1000, long_ms % 1000)
}

/// A child that is asked for: all that is known of it before its parents are looked at.
struct Wanted {
    key: Option<String>,
    content_hash: [u8; 32],
    of: Vec<SongId>,
    body: Body,
}

impl Wanted {
    fn read(request: &HttpRequest, kind: TaskKind, of: Vec<SongId>, body: Body) -> Result<Self, Problem> {
        let key = idempotency_key(request.headers())?;
        // What the path says is part of what was asked for.
        let whole = json!({ "kind": kind, "of": of, "body": wishes::hash(&body) });
        Ok(Self { key, content_hash: wishes::hash_of(&whole), of, body })
    }

    async fn child_of_one(
        &self,
        api: &web::Data<Api>,
        who: &Who,
        work: impl FnOnce(&Body, SourceClip) -> Result<Work, Problem>,
    ) -> Result<HttpResponse, Problem> {
        let child = async {
            let parent = own(api, who, self.of[0]).await?;
            let work = work(&self.body, source(&parent, &self.body)?)?;
            self.child(api, who, &parent, work).await
        };
        self.or_as_before(api, who, child.await).await
    }

    /// Creates a song that is made from others (SONG-10): paid, stored and started as every song is. It is like its first
    /// parent, but for what was asked otherwise.
    async fn child(
        &self,
        api: &web::Data<Api>,
        who: &Who,
        parent: &Song,
        work: Work,
    ) -> Result<HttpResponse, Problem> {
        let mut wish = wish_of(parent, &self.body, work);
        wish.parent_ids.clone_from(&self.of);
        let asked = preferred(api, &self.body, &wish);
        wishes::settle(api, asked.as_deref(), &mut wish)?;
        let metadata = self.body.object("metadata").cloned().unwrap_or_else(|| json!({}));
        let song = wishes::pending(&who.0.user, wish, metadata, api.clock().now());
        let (content_hash, key) = (self.content_hash, self.key.clone());
        begin(api, who, Asked { song, content_hash, key, refuse_when_busy: false }).await
    }

    /// What came of it, or what was made of it when it came before under its key: a parent that was deleted since, or is
    /// being made again, takes nothing from who repeats it (CRED-5).
    async fn or_as_before(
        &self,
        api: &Api,
        who: &Who,
        made: Result<HttpResponse, Problem>,
    ) -> Result<HttpResponse, Problem> {
        let (Err(problem), Some(key)) = (&made, &self.key) else { return made };
        if !matches!(problem.kind(), Kind::NotFound | Kind::WrongState | Kind::InvalidInput) {
            return made;
        }
        let question =
            async |client: &deadpool_postgres::Object| songs::made_under(client, &who.0.user, key).await;
        match store::ask(&api.world.pool, question).await? {
            Some((song, hash)) if hash == self.content_hash => {
                Ok(as_before(api, &own(api, who, song).await?))
            }
            Some(_) | None => made,
        }
    }
}

/// The wish of a child: its parent's, but for what was asked otherwise.
fn wish_of(parent: &Song, body: &Body, work: Work) -> Wish {
    let own_style = body.texts("style_tags");
    let style_tags = if own_style.is_empty() { parent.wish.options.style_tags.clone() } else { own_style };
    // A cover sings the song's words again; what follows or replaces has words of its own.
    let same_words = matches!(work, Work::Cover { .. });
    let lyrics = body.owned("lyrics").or_else(|| parent.lyrics.clone().filter(|_| same_words));
    Wish {
        mode: Mode::Music,
        title: body.owned("title").or_else(|| parent.title.clone()),
        prompt: body.owned("prompt"),
        lyrics,
        options: MusicOptions {
            style_tags,
            instrumental: parent.wish.options.instrumental,
            ..MusicOptions::default()
        },
        work,
        ..wishes::bare_wish()
    }
}

/// Who is asked: whoever was named; else the maker of the song where it can, because only there its clips are known.
fn preferred(api: &Api, body: &Body, wish: &Wish) -> Option<String> {
    let maker = || {
        let maker = wish.work.sources().first()?.provider.clone();
        let able = api.world.providers.get(&maker)?.capabilities();
        wishes::lacking(able, wish).is_empty().then_some(maker)
    };
    body.owned("provider").filter(|name| name != "auto").or_else(maker)
}

// --- what work is done on -------------------------------------------------------------------------

/// The clip of a finished song that was asked for, with all that a provider may need to know of it.
fn source(song: &Song, body: &Body) -> Result<SourceClip, Problem> {
    match song.phase {
        Phase::Ready | Phase::Complete => {}
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => {
            let status = song.status();
            return Err(Problem::wrong_state(
                status,
                format!("The song {} is {}.", song.id, status.as_str()),
            ));
        }
    }
    let variant = variant(song, body.integer("variant_number"))?;
    Ok(SourceClip {
        song: song.id,
        variant_number: variant.variant_number,
        provider: song.head.provider.clone(),
        provider_task: variant.provider_task.clone(),
        clip_id: variant.clip_id.clone(),
        audio_url: variant.audio_url.clone(),
        duration_ms: variant.duration_ms,
        model: song.wish.options.model.clone().or_else(|| inherited_model(song)),
        title: variant.title.clone().or_else(|| song.title.clone()),
        lyrics: song.lyrics.clone(),
        style_tags: song.wish.options.style_tags.clone(),
        instrumental: song.wish.options.instrumental,
    })
}

/// What goes on from a clip is made with the clip's model.
fn inherited_model(song: &Song) -> Option<String> {
    match &song.wish.work {
        Work::Extend { of, .. } | Work::ReplaceSection { of, .. } => of.model.clone(),
        Work::Lyrics
        | Work::Generate
        | Work::Merge { .. }
        | Work::Cover { .. }
        | Work::Stems { .. }
        | Work::Persona { .. }
        | Work::Video { .. } => None,
    }
}

fn variant(song: &Song, number: Option<i64>) -> Result<&Variant, Problem> {
    let mut playable = song.variants.iter().filter(|variant| variant.playable());
    let found = match number {
        Some(number) => playable.find(|variant| i64::from(variant.variant_number) == number),
        None => playable.clone().find(|variant| variant.selected).or_else(|| playable.next()),
    };
    found.ok_or_else(|| {
        Problem::invalid_at("/variant_number", "the song has no such variant that can be played")
    })
}

const CHILD_ANSWERS: &[(u16, &str)] = &[
    (202, "The child song, under way; `parent_ids` names what it is made from."),
    (200, "A replay of the same `Idempotency-Key`."),
    (400, "Every wrong field, with a pointer to each."),
    (402, "It cannot be paid."),
    (404, "There is no such song of yours."),
    (409, "The song is not finished."),
    (422, "No provider can do this; or the key came with other content."),
    (429, "Your plan allows no further song at this time; `Retry-After` and `X-RateLimit-*` say more."),
];
pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/songs/{id}/extend",
        summary: "Go on where a song ends",
        doc: "Makes a child song that continues a variant, from its end or from a place in it.",
        body: Some(EXTEND),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/replace-section",
        summary: "Make a part of a song anew",
        doc: "Makes a child song in which the seconds from `start_s` to `end_s` are new.",
        body: Some(REPLACE_SECTION),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/{id}/cover",
        summary: "The same song in another style",
        doc: "Makes a child song with the same melody and, unless other lyrics are given, the same words.",
        body: Some(COVER),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
    Operation {
        method: "post",
        path: "/v1/songs/merge",
        summary: "Join songs to one",
        doc: "Makes a child song of the favourite variants of several songs, in their order.",
        body: Some(MERGE),
        answers: CHILD_ANSWERS,
        returns: Some("Song"),
        keyed: Keyed::Optional,
        ..Operation::BASE
    },
];

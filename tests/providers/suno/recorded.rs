//! Suno's part of the conformance suite: which order stands behind which recorded body.

use std::sync::Arc;

use songflight::provider::suno::{Dialect, Stems, SunoSettings};
use songflight::provider::{MusicOptions, Order, SharedProvider, SourceClip, TaskKind, VocalGender, Work};

use super::{an_order, order, source, with, with_settings};
use crate::conformance::{KEY, Recorded, Subject};
use crate::fixtures::{self, Fixture};

pub(crate) const SUBJECT: Subject = Subject {
    name: "suno",
    adapter: speaking,
    order: order_behind,
    expected,
    requests,
    foreign: &[
        ("gw_", "of a gateway with other paths and bodies"),
        ("wav", "WAV files are not ordered"),
        ("cover_images", "pictures alone are not ordered"),
        ("timestamped_lyrics", "timed words are not asked for"),
        ("response_credits", "the account is not asked for"),
        ("request_add_", "no kind adds vocals or instruments to a recording"),
        ("request_mashup", "no kind mixes two songs"),
    ],
    alarms: &[
        "response_error_401.json",
        "response_error_404.json",
        "response_error_kie_505_feature_off.json",
    ],
    doubtful: &[],
};

/// In the fixture's dialect: kie.ai where the index says so.
fn speaking(base_url: &str, fixture: &Fixture) -> SharedProvider {
    let dialect = if fixture.about("dialect") == "kie.ai" { Dialect::Kie } else { Dialect::Sunoapi };
    let stems = if fixture.name.contains("split_stem") { Stems::Twelve } else { Stems::Two };
    Arc::new(with_settings(SunoSettings { dialect, stems, ..SunoSettings::new(base_url, KEY) }))
}

fn order_behind(fixture: &Fixture) -> Order {
    const KINDS: [(&str, TaskKind); 6] = [
        ("lyrics", TaskKind::Lyrics),
        ("stems", TaskKind::Stems),
        ("mp4", TaskKind::Video),
        ("persona", TaskKind::Persona),
        ("replace_section", TaskKind::ReplaceSection),
        ("status_extend", TaskKind::Extend),
    ];
    let kind = KINDS.iter().find(|(part, _)| fixture.name.contains(part));
    let kind = kind.map_or(TaskKind::Generate, |(_, kind)| *kind);
    let song = Order { prompt: Some("a calm folk song".into()), ..order(kind) };
    // A file that cannot be fetched is the user's only if the order named one.
    let file = fixture.name.contains("fetch").then(|| "https://x.test/a.mp3".into());
    with(song, |options| options.reference_audio_url = file)
}

fn expected(fixture: &Fixture) -> &str {
    match (fixture.about("error_class"), fixture.about("stage"), fixture.about("state")) {
        _ if fixture.name == "response_persona.json" => "complete",
        ("", "", "PENDING" | "") => "working",
        ("", _, "TEXT_SUCCESS") => "text",
        ("", _, "FIRST_SUCCESS") => "first",
        ("", _, "SUCCESS" | "CALLBACK_EXCEPTION") => "complete",
        ("", stage, "") => stage,
        (class, ..) => class,
    }
}

/// Our orders that stand behind the recorded requests.
fn requests() -> Vec<Recorded> {
    const UNASKED: &[&str] = &["author", "domainName", "vocalStart", "vocalEnd"];
    let recorded = |(name, order)| Recorded { without: UNASKED, ..Recorded::exactly(name, order) };
    songs().into_iter().chain(of_clips()).map(recorded).collect()
}

fn recorded(name: &str, key: &str) -> Option<String> {
    fixtures::one("suno", name).json()[key].as_str().map(String::from)
}

fn tags(text: &str) -> Vec<String> {
    text.split(", ").map(String::from).collect()
}

/// The order with the texts that were recorded.
fn with_texts(name: &str, order: Order) -> Order {
    let style = recorded(name, "style").or(recorded(name, "tags"));
    Order {
        title: recorded(name, "title"),
        lyrics: recorded(name, "prompt"),
        options: MusicOptions {
            style_tags: style.map(|style| tags(&style)).unwrap_or_default(),
            model: recorded(name, "model"),
            ..MusicOptions::default()
        },
        ..order
    }
}

fn songs() -> Vec<(&'static str, Order)> {
    let generate = |name| with_texts(name, order(TaskKind::Generate));
    let (vocal, quiet, simple, persona, lyrics) = (
        "request_generate_custom_vocal.json",
        "request_generate_custom_instrumental.json",
        "request_generate_simple.json",
        "request_generate_persona.json",
        "request_lyrics.json",
    );
    let sung = with(generate(vocal), |options| {
        options.negative_tags = tags("heavy metal, screaming");
        options.vocal_gender = Some(VocalGender::Female);
        options.style_weight = Some(0.65);
        options.weirdness = Some(0.3);
        options.audio_weight = Some(0.5);
    });
    vec![
        (vocal, sung),
        (quiet, with(generate(quiet), |options| options.instrumental = true)),
        (simple, Order { prompt: recorded(simple, "prompt"), lyrics: None, ..generate(simple) }),
        (persona, with(generate(persona), |options| options.persona_id = recorded(persona, "personaId"))),
        (lyrics, Order { prompt: recorded(lyrics, "prompt"), ..order(TaskKind::Lyrics) }),
    ]
}

fn of_clips() -> Vec<(&'static str, Order)> {
    let extended = |of, continue_at_ms| an_order(Work::Extend { of, continue_at_ms });
    let elsewhere = || SourceClip { provider: "mureka".into(), ..source() };
    let (custom, upload, section, cover) = (
        "request_extend_custom.json",
        "request_upload_extend.json",
        "request_replace_section.json",
        "request_upload_cover.json",
    );
    vec![
        (custom, with_texts(custom, extended(source(), Some(120_500)))),
        ("request_extend_inherit.json", extended(source(), None)),
        (upload, with_texts(upload, extended(elsewhere(), Some(60_000)))),
        (section, with_texts(section, order(TaskKind::ReplaceSection))),
        (cover, with(with_texts(cover, order(TaskKind::Cover)), |options| options.audio_weight = Some(0.6))),
        ("request_vocal_removal.json", order(TaskKind::Stems)),
        ("request_split_stem.json", order(TaskKind::Stems)),
        ("request_mp4.json", order(TaskKind::Video)),
        ("request_persona.json", order(TaskKind::Persona)),
    ]
}

//! How the clips that a provider reports become a song's variants: placeholders first, filled by
//! position, matched by clip id ever after (SONG-9). Pure.

use super::parts::Clip;
use super::phase::{Song, VARIANTS_MAX, Variant, VariantStatus};
use crate::id::ShareToken;

/// Placeholders for all the clips that are to come.
pub(super) fn keep_places(song: &mut Song) {
    while song.variants.len() < usize::from(song.wish.variants.min(VARIANTS_MAX)) {
        if !add_place(song) {
            return;
        }
    }
    for variant in &mut song.variants {
        if variant.status == VariantStatus::Pending {
            variant.status = VariantStatus::Generating;
        }
    }
}

/// Forgets the clips of an attempt that failed; the places stay, and with them the share links.
pub(super) fn forget(song: &mut Song) {
    for variant in &mut song.variants {
        *variant =
            Variant { selected: variant.selected, ..place(variant.variant_number, variant.share_token) };
    }
}

/// Takes over what is told. What `newer` reports say overwrites; what late ones say fills gaps only (CB-4).
pub(super) fn merge(song: &mut Song, clips: &[Clip], newer: bool) {
    for clip in clips {
        let Some(position) = place_for(song, clip) else { continue };
        overlay(&mut song.variants[position], clip, newer);
        if song.lyrics.is_none() && !song.wish.instrumental {
            song.lyrics.clone_from(&clip.lyrics);
        }
        if song.title.is_none() {
            song.title.clone_from(&clip.title);
        }
    }
}

/// At the deadline: the url that can be built from a clip's id stands in for the missing one (PROV-7).
pub(super) fn fall_back(song: &mut Song) {
    for variant in song.variants.iter_mut().filter(|variant| !variant.playable()) {
        variant.audio_url.clone_from(&variant.fallback_url);
    }
}

/// Nothing more will come: each variant is complete or failed.
pub(super) fn close(song: &mut Song) {
    for variant in &mut song.variants {
        variant.status = if variant.playable() { VariantStatus::Complete } else { VariantStatus::Failed };
    }
}

/// The song ends without its music: what is not finished will not be.
pub(super) fn abandon(song: &mut Song) {
    for variant in song.variants.iter_mut().filter(|variant| variant.status != VariantStatus::Complete) {
        variant.status = VariantStatus::Failed;
    }
}

/// The variant with this clip's id; else the first that has none yet; else a further one.
fn place_for(song: &mut Song, clip: &Clip) -> Option<usize> {
    let known = clip
        .clip_id
        .as_ref()
        .and_then(|id| song.variants.iter().position(|variant| variant.clip_id.as_ref() == Some(id)));
    let same_audio = || {
        let url = clip.audio_url.as_ref()?;
        song.variants.iter().position(|variant| variant.audio_url.as_ref() == Some(url))
    };
    if let Some(position) = known.or_else(same_audio) {
        return Some(position);
    }
    let free = |variant: &Variant| variant.clip_id.is_none() && variant.audio_url.is_none();
    if let Some(position) = song.variants.iter().position(free) {
        return Some(position);
    }
    add_place(song).then(|| song.variants.len() - 1)
}

fn add_place(song: &mut Song) -> bool {
    let number = song.variants.len();
    let Some(token) = song.wish.share_tokens.get(number).filter(|_| number < usize::from(VARIANTS_MAX))
    else {
        return false;
    };
    let number = i16::try_from(number + 1).expect("at most 5 variants");
    song.variants.push(place(number, *token));
    true
}

const fn place(variant_number: i16, share_token: ShareToken) -> Variant {
    Variant {
        variant_number,
        status: VariantStatus::Generating,
        clip_id: None,
        title: None,
        duration_ms: None,
        stream_url: None,
        audio_url: None,
        fallback_url: None,
        asset_url: None,
        image_url: None,
        video_url: None,
        share_token,
        selected: false,
    }
}

fn overlay(variant: &mut Variant, clip: &Clip, newer: bool) {
    fn take<T: Clone>(mine: &mut Option<T>, told: Option<&T>, newer: bool) {
        if let Some(told) = told
            && (newer || mine.is_none())
        {
            *mine = Some(told.clone());
        }
    }
    take(&mut variant.clip_id, clip.clip_id.as_ref(), newer);
    take(&mut variant.title, clip.title.as_ref(), newer);
    take(&mut variant.duration_ms, clip.duration_ms.as_ref(), newer);
    take(&mut variant.stream_url, clip.stream_url.as_ref(), newer);
    take(&mut variant.audio_url, clip.audio_url.as_ref(), newer);
    take(&mut variant.fallback_url, clip.fallback_url.as_ref(), newer);
    take(&mut variant.image_url, clip.image_url.as_ref(), newer);
    take(&mut variant.video_url, clip.video_url.as_ref(), newer);
    if clip.failed && !variant.playable() {
        variant.status = VariantStatus::Failed;
    } else if variant.audio_url.is_some() {
        variant.status = VariantStatus::Complete;
    }
}

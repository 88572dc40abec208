//! How the clips that a provider reports become a song's variants: placeholders first, filled by
//! position, matched by clip id ever after (SONG-9). Pure.

use super::parts::{Clip, Stage};
use super::phase::{Call, CallState, Run, Song, VARIANTS_MAX, Variant, VariantStatus};
use super::wish::Mode;
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

/// Forgets what an attempt that failed has brought; the places stay, and with them the share links.
pub(super) fn forget(song: &mut Song, call: &mut Call) {
    for variant in song.variants.iter_mut().filter(|v| call.places.contains(&v.variant_number)) {
        clear(variant);
    }
    if !call.places.is_empty() && !song.variants.iter().any(|v| v.clip_id.is_some() || v.playable()) {
        forget_words(song);
    }
    call.places.clear();
    call.finished.clear();
    call.stage = None;
}

/// Forgets what a task that failed has brought.
pub(super) fn forget_all(song: &mut Song) {
    song.variants.iter_mut().for_each(clear);
    forget_words(song);
}

/// Takes up a song again of which some variations are missing: calls whose variation is there have ended already.
pub(super) fn resume(song: &mut Song, run: &mut Run) {
    for (variant, call) in song.variants.iter_mut().zip(&mut run.calls) {
        if variant.playable() {
            call.state = CallState::Done;
            call.places = vec![variant.variant_number];
        } else {
            clear(variant);
        }
    }
}

/// Whether some of its variations did not come.
pub(super) fn some_are_missing(song: &Song) -> bool {
    !song.wish.variations.is_empty() && song.variants.iter().any(|variant| !variant.playable())
}

fn clear(variant: &mut Variant) {
    *variant = Variant { selected: variant.selected, ..place(variant.variant_number, variant.share_token) };
}

/// Words that the provider made up are not an order for the next attempt.
fn forget_words(song: &mut Song) {
    if song.wish.mode == Mode::Music {
        song.lyrics.clone_from(&song.wish.lyrics);
    }
}

/// Whether this call has brought anything that can be played.
pub(super) fn playable(song: &Song, call: &Call) -> bool {
    song.variants.iter().any(|v| v.playable() && call.places.contains(&v.variant_number))
}

/// Whether watchers see no difference: the url in reserve is not shown, nor is the task that brings a clip.
pub(super) fn look_alike(before: &[Variant], after: &[Variant]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            before == after
                || Variant {
                    fallback_url: before.fallback_url.clone(),
                    provider_task: before.provider_task.clone(),
                    ..after.clone()
                } == *before
        })
}

/// Takes over what is told of a call. Of a stage not behind the known one it overwrites; late, it fills
/// gaps only (CB-4).
pub(super) fn merge(song: &mut Song, run: &mut Run, index: usize, stage: Stage, clips: &[Clip]) {
    let newer = run.calls[index].stage.is_none_or(|known| stage >= known);
    run.calls[index].stage = run.calls[index].stage.max(Some(stage));
    let mut taken = Vec::new();
    for (nth, clip) in clips.iter().enumerate() {
        let Some(position) = place_for(song, run, index, nth, clip, &taken) else { continue };
        let number = song.variants[position].variant_number;
        taken.push(number);
        let places = &mut run.calls[index].places;
        if !places.contains(&number) {
            places.push(number);
        }
        song.variants[position].provider_task = provider_task(&run.calls[index]);
        overlay(&mut song.variants[position], clip, newer);
        if song.lyrics.is_none() && !song.wish.options.instrumental {
            song.lyrics.clone_from(&clip.lyrics);
        }
        if song.title.is_none() {
            song.title.clone_from(&clip.title);
        }
    }
}

fn provider_task(call: &Call) -> Option<String> {
    match &call.state {
        CallState::Submitted { provider_task, .. } => Some(provider_task.clone()).filter(|id| !id.is_empty()),
        CallState::Accepted { .. }
        | CallState::Intent { .. }
        | CallState::Unknown { .. }
        | CallState::Done
        | CallState::Failed { .. } => None,
    }
}

/// A task that told of clips before it was known what it is called.
pub(super) fn learn_task(song: &mut Song, call: &Call) {
    for variant in song.variants.iter_mut().filter(|v| call.places.contains(&v.variant_number)) {
        variant.provider_task = provider_task(call);
    }
}

/// The provider said which clips will come: each has its place by its id from the start.
pub(super) fn name_places(song: &mut Song, run: &mut Run, index: usize, clip_ids: &[String]) {
    let clips: Vec<Clip> =
        clip_ids.iter().map(|id| Clip { clip_id: Some(id.clone()), ..Clip::default() }).collect();
    let known = run.calls[index].stage;
    if !clips.is_empty() {
        merge(song, run, index, Stage::Text, &clips);
        run.calls[index].stage = known;
    }
}

/// Whether nothing more will come of any clip of this call, with what is told of them one by one.
pub(super) fn all_finished(song: &Song, run: &mut Run, index: usize, told: &[Clip]) -> bool {
    let wanted = song.wish.variants_of_call(u8::try_from(index).unwrap_or(u8::MAX));
    let call = &mut run.calls[index];
    for id in told.iter().filter(|clip| clip.finished).filter_map(|clip| clip.clip_id.as_ref()) {
        // One more than is kept says nothing of those that are.
        let mut kept = song.variants.iter().filter(|v| call.places.contains(&v.variant_number));
        if !call.finished.contains(id) && kept.any(|variant| variant.clip_id.as_ref() == Some(id)) {
            call.finished.push(id.clone());
        }
    }
    !call.finished.is_empty() && call.finished.len() >= call.places.len().max(usize::from(wanted))
}

/// At a call's deadline: the url that can be built from a clip's id stands in for that of a clip which was to be heard, in
/// a stream that ends with its generation (PROV-7). Of one that nobody has heard there may never be a file, and nobody
/// looks: its words and its id alone are no result (CB-6).
pub(super) fn fall_back(song: &mut Song, call: &Call) {
    for variant in song.variants.iter_mut().filter(|v| call.places.contains(&v.variant_number)) {
        if variant.audio_url.is_none() && variant.stream_url.is_some() {
            variant.audio_url.clone_from(&variant.fallback_url);
        }
    }
}

/// Nothing more will come: each variant is complete or failed.
pub(super) fn close(song: &mut Song) {
    for variant in &mut song.variants {
        variant.status = if variant.playable() { VariantStatus::Complete } else { VariantStatus::Failed };
    }
}

/// How many clips are there to stay.
pub(super) fn finished(song: &Song) -> i64 {
    song.variants.iter().map(|variant| i64::from(variant.status == VariantStatus::Complete)).sum()
}

/// The song ends without its music: what is not finished will not be.
pub(super) fn abandon(song: &mut Song) {
    for variant in song.variants.iter_mut().filter(|variant| variant.status != VariantStatus::Complete) {
        variant.status = VariantStatus::Failed;
    }
}

/// The variant with this clip's id, or else with its audio. A clip without an id is then the one that
/// stood at this place in the call's earlier reports. Else it takes the first place that is free, or a
/// further one. Two clips of one report never share a place by chance.
fn place_for(
    song: &mut Song,
    run: &Run,
    index: usize,
    nth: usize,
    clip: &Clip,
    taken: &[i16],
) -> Option<usize> {
    if !song.wish.variations.is_empty() {
        return place_of_variation(song, index, clip, taken);
    }
    let find = |wanted: &dyn Fn(&Variant) -> bool| song.variants.iter().position(wanted);
    let mine = &run.calls[index].places;
    let others =
        |number| run.calls.iter().any(|call| call.places.contains(&number)) && !mine.contains(&number);

    let by_id = |v: &Variant| clip.clip_id.is_some() && v.clip_id == clip.clip_id;
    let unnamed = |v: &Variant| v.clip_id.is_none() || clip.clip_id.is_none();
    let same_audio = |v: &Variant| clip.audio_url.is_some() && v.audio_url == clip.audio_url;
    let by_audio = |v: &Variant| same_audio(v) && unnamed(v) && !others(v.variant_number);
    let open = |v: &Variant| v.clip_id.is_none() && !taken.contains(&v.variant_number);
    let by_position =
        |v: &Variant| clip.clip_id.is_none() && mine.get(nth) == Some(&v.variant_number) && open(v);
    let free = |v: &Variant| v.audio_url.is_none() && open(v) && !others(v.variant_number);

    find(&by_id)
        .or_else(|| find(&by_audio))
        .or_else(|| find(&by_position))
        .or_else(|| find(&free))
        .or_else(|| add_place(song).then(|| song.variants.len() - 1))
}

/// A variation has the place of its call and keeps the first clip, however many a provider makes at once (CRED-8).
fn place_of_variation(song: &Song, index: usize, clip: &Clip, taken: &[i16]) -> Option<usize> {
    let variant = song.variants.get(index)?;
    let same = clip.clip_id.is_some() && variant.clip_id == clip.clip_id;
    let open = variant.clip_id.is_none() && !taken.contains(&variant.variant_number);
    (same || open).then_some(index)
}

fn add_place(song: &mut Song) -> bool {
    let number = song.variants.len();
    // A preview has no more than was asked for, however many a provider makes at once (CRED-6).
    if song.wish.preview && number >= usize::from(song.wish.variants) {
        return false;
    }
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
        provider_task: None,
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

//! What must hold in the database whatever happened (`durability.md` section 6), as SQL that finds
//! whatever breaks it.

use tokio_postgres::{Client, IsolationLevel};

/// Each answers rows that must not be there, in words; `$1` is a user, or null for all of them.
const RULES: [(&str, &str); 11] = [
    (
        "a balance is the sum of its entries",
        "select format('%s has %s, the entries say %s', p.user_id, p.credits, coalesce(sum(c.amount), 0))
           from profiles p left join credit_entries c using (user_id)
          where p.user_id = coalesce($1, p.user_id)
          group by p.user_id, p.credits having p.credits <> coalesce(sum(c.amount), 0)",
    ),
    (
        "every entry's balance is the sum up to it",
        "select format('entry %s of %s says %s, not %s', id, user_id, balance, total)
           from (select *, sum(amount) over (partition by user_id order by id) as total from credit_entries
                  where user_id = coalesce($1, user_id)) c
          where balance <> total",
    ),
    (
        "a paid task that ended has one reservation and one settling entry",
        "select format('task %s of song %s: %s reservations, %s settlements', t.id, t.song_id, r.n, e.n)
           from tasks t join songs s on s.id = t.song_id
          cross join lateral (select count(*) as n from credit_entries where task_id = t.id and reason = 'reserve') r
          cross join lateral (select count(*) as n from credit_entries where task_id = t.id and reason <> 'reserve') e
          where t.price > 0 and t.ended_at is not null and (r.n, e.n) <> (1, 1)
            and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a paid task under way is reserved and not settled",
        "select format('task %s of song %s: %s reservations, %s settlements', t.id, t.song_id, r.n, e.n)
           from tasks t join songs s on s.id = t.song_id
          cross join lateral (select count(*) as n from credit_entries where task_id = t.id and reason = 'reserve') r
          cross join lateral (select count(*) as n from credit_entries where task_id = t.id and reason <> 'reserve') e
          where t.price > 0 and t.ended_at is null and (r.n, e.n) <> (1, 0)
            and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a song's costs and refunds are its entries",
        "select format('song %s: cost %s, refunded %s; entries %s, %s', s.id, s.cost, s.refunded, c.out, c.back)
           from songs s
          cross join lateral (select coalesce(-sum(amount) filter (where reason = 'reserve'), 0) as out,
                                     coalesce(sum(amount) filter (where reason <> 'reserve'), 0) as back
                                from credit_entries where song_id = s.id) c
          where (s.cost, s.refunded) <> (c.out, c.back) and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a song's events are numbered 1 to n",
        "select format('song %s: %s events up to %s, the song is at %s', e.song_id, count(*), max(e.seq), h.seq)
           from song_events e join songs s on s.id = e.song_id
           join lateral (select seq from tasks where song_id = e.song_id and not beside order by number desc limit 1) h on true
          where s.user_id = coalesce($1, s.user_id) group by e.song_id, h.seq
         having count(*) <> max(e.seq) or count(distinct e.seq) <> max(e.seq) or max(e.seq) <> h.seq",
    ),
    (
        "a user's events are numbered 1 to n",
        "select format('%s: %s events up to %s, the user is at %s', p.user_id, count(e.u), max(e.u), p.u)
           from profiles p left join song_events e using (user_id)
          where p.user_id = coalesce($1, p.user_id) group by p.user_id, p.u
         having count(distinct e.u) <> p.u or coalesce(max(e.u), 0) <> p.u",
    ),
    (
        "a song that is not under way has no running task",
        "select format('song %s is %s and has a running task', s.id, s.status)
           from songs s join tasks t on t.song_id = s.id and t.ended_at is null
          where (s.status in ('lyrics_ready', 'ready', 'complete', 'failed', 'cancelled') or s.deleted_at is not null)
            and s.user_id = coalesce($1, s.user_id)",
    ),
    (
        "a song under way has one running task",
        "select format('song %s is %s and has %s running tasks', s.id, s.status, count(t.id))
           from songs s left join tasks t on t.song_id = s.id and t.ended_at is null
          where s.status in ('pending', 'generating_lyrics', 'generating_music') and s.deleted_at is null
            and s.user_id = coalesce($1, s.user_id)
          group by s.id having count(t.id) <> 1",
    ),
    (
        "at most one lyrics text and one clip are chosen",
        "select format('song %s', s.id) from songs s
          where s.user_id = coalesce($1, s.user_id) and ((select count(*) filter (where selected) from lyrics_variants where song_id = s.id) > 1
             or (select count(*) filter (where selected) from song_variants where song_id = s.id) > 1)",
    ),
    ("nothing was put aside", "select format('%s %s: %s', kind, song_id, error) from failed_jobs where $1::text is null"),
];

/// # Panics
/// When a rule is broken, with the rows that break it.
pub async fn audit(mut client: Client, user: Option<&str>) {
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let snapshot = snapshot.start().await.expect("a snapshot");
    for (rule, sql) in RULES {
        let rows = snapshot.query(sql, &[&user]).await.unwrap_or_else(|error| panic!("{rule}: {error:?}"));
        let broken: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(broken.is_empty(), "broken: {rule}\n  {}", broken.join("\n  "));
    }
}

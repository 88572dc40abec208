//! One user's money, held against what was delivered for it (CRED-2, SONG-11).

use tokio_postgres::Client;

/// What was delivered is seen from the songs alone, not from what the ledger says of them: the lyrics that are there,
/// the music of songs that are ready, and of cancelled ones the share of the clips that were there. Of songs that
/// nobody retried.
const SUMS: &str = "
select coalesce(-sum(amount) filter (where reason = 'reserve'), 0)::bigint as charged,
       coalesce(sum(amount) filter (where reason in ('capture', 'release')), 0)::bigint as refunded,
       coalesce(min(balance), 0) as least,
       (select credits from profiles where user_id = $1) as credits,
       (select coalesce(sum(case
                   when t.kind = 'lyrics' then t.price * least(l.there, 1)
                   when s.status in ('ready', 'complete') then t.price
                   when s.status = 'cancelled' then t.price * v.there / greatest(v.all, 1)
                   else 0 end), 0)::bigint
          from tasks t join songs s on s.id = t.song_id
         cross join lateral (select count(*) as there from lyrics_variants where song_id = s.id) l
         cross join lateral (select count(*) as all, count(*) filter (where status = 'complete') as there
                               from song_variants where song_id = s.id) v
         where s.user_id = $1) as delivered
  from credit_entries where user_id = $1";

/// In thousandths of a credit.
#[derive(Clone, Copy, Debug)]
pub struct Purse {
    pub charged: i64,
    pub refunded: i64,
    pub delivered: i64,
    /// The lowest balance there ever was.
    pub least: i64,
    pub credits: i64,
}

impl Purse {
    pub async fn of(database: &Client, user: &str) -> Self {
        let row = database.query_one(SUMS, &[&user]).await.expect("sums");
        Self {
            charged: row.get("charged"),
            refunded: row.get("refunded"),
            delivered: row.get("delivered"),
            least: row.get("least"),
            credits: row.get("credits"),
        }
    }

    /// # Panics
    /// When it was overdrawn, holds something else than is left of what it held, or paid for anything that was not
    /// delivered.
    pub fn adds_up(&self, held: i64) {
        assert!(self.least >= 0 && self.credits >= 0, "overdrawn: {self:?}");
        assert_eq!(self.credits, held - self.charged + self.refunded, "{self:?}");
        assert_eq!(self.charged - self.refunded, self.delivered, "{self:?}");
    }
}

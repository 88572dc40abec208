-- A user's entries are found by the ledger's key, which is one index less for each entry. Beside this the version before
-- works on as it did. Makes the index anew, of all entries there are, under a lock on the ledger.
alter table credit_entries drop constraint credit_entries_pkey;
alter table credit_entries add primary key (user_id, id);
drop index credit_entries_of_user;

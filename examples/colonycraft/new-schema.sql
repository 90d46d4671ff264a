-- ColonyCraft after: tags are rows, several to a conversation, in an order. The first one is the category.
--
-- Normal form (the app keeps it; with it both mappings are exact inverses):
--   tags.id                     md5(user_id || ':' || name)::uuid, so that both sides compute the same one
--   conversation_tags.position  0, 1, 2, … without gaps within a conversation
--   conversations.metadata      without the keys `category` and `more_tags` (checked below)
-- A tag that no conversation uses any more stays: it belongs to the user, not to a conversation.

create table users (
  id uuid primary key,
  name text not null,
  created_at timestamptz not null
);

create table conversations (
  id uuid primary key,
  user_id uuid not null references users,
  title text not null,
  metadata jsonb not null default '{}',
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint tags_are_rows check (jsonb_typeof(metadata) = 'object' and not metadata ?| array['category', 'more_tags'])
);

create index conversations_by_user on conversations (user_id, updated_at desc, id desc);

create table tags (
  id uuid primary key,
  user_id uuid not null references users,
  name text not null check (length(name) between 1 and 50),
  unique (user_id, name)
);

create table conversation_tags (
  conversation_id uuid not null references conversations,
  tag_id uuid not null references tags,
  position integer not null check (position >= 0),
  primary key (conversation_id, tag_id)
);

-- No unique (conversation_id, position): an index that is not the key would refuse a mere change of order half way.
create index conversation_tags_by_tag on conversation_tags (tag_id);

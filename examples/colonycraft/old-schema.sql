-- ColonyCraft before: a conversation has one category, and the app keeps it inside `metadata`.
--
-- Normal form of `metadata` (the app keeps it, the plan rejects what breaks it):
--   category   absent, or a string of 1 to 50 characters
--   more_tags  absent, or a non-empty array of further tags: distinct, none equal to the category, only with a category
-- All other keys are free.

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
  updated_at timestamptz not null
);

create index conversations_by_user on conversations (user_id, updated_at desc, id desc);

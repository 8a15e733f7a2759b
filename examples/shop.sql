-- The little shop of the quickstart. Safe to run again: it adds only what is missing.
create table if not exists public.customers (
    id    bigint generated always as identity primary key,
    name  text not null unique,
    email text
);

create table if not exists public.orders (
    id          bigint generated always as identity primary key,
    customer_id bigint not null references public.customers (id),
    item        text not null,
    quantity    int not null default 1,
    total       numeric(10, 2) not null,
    status      text not null default 'open',
    created_at  timestamptz not null default now()
);

insert into public.customers (name, email) values
    ('Ada', 'ada@example.com'),
    ('Grace', 'grace@example.com'),
    ('Edsger', null)
on conflict (name) do nothing;

insert into public.orders (customer_id, item, total)
select id, 'tea', 12.50 from public.customers
where not exists (select from public.orders);

-- The little shop for MySQL and MariaDB. Safe to run again: it adds only what is missing.
create table if not exists customers (
    id    bigint       not null auto_increment primary key,
    name  varchar(100) not null unique,
    email varchar(200)
);

create table if not exists orders (
    id          bigint         not null auto_increment primary key,
    customer_id bigint         not null,
    item        varchar(100)   not null,
    quantity    int            not null default 1,
    total       decimal(10, 2) not null,
    status      varchar(20)    not null default 'open',
    created_at  timestamp(6)   not null default current_timestamp(6),
    foreign key (customer_id) references customers (id)
);

insert into customers (name, email)
select wanted.name, wanted.email
from (
    select 'Ada' as name, 'ada@example.com' as email
    union all select 'Grace', 'grace@example.com'
    union all select 'Edsger', null
) as wanted
where not exists (select 1 from customers where customers.name = wanted.name);

insert into orders (customer_id, item, total)
select id, 'tea', 12.50 from customers
where not exists (select 1 from orders);

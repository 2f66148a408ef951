-- Leases up to N messages, after giving back what earlier leases left unused.
--
-- ARGV: N; slots taken ahead within the reserve, and beyond it;
--       COUNT of returns, then AT N each; counters; windows (see lib.lua);
--       own reserve; COUNT of windows kept by slots, then NAME EVERY LATE each
-- Returns: granted, delay from now to the first slot (negative: past), time
--       after which to ask again, now

local want, within, beyond = num(), num(), num()
local back = {}
for i = 1, num() do
  back[i] = {at = num(), n = num()}
end
local cs = counters()
for _, b in ipairs(back) do
  for _, c in ipairs(cs) do
    if c.charge then
      uncount(c, b.at, b.n)
    end
  end
end

local n, retry = room(cs, want)

-- Within its reserve a stream may take slots further ahead than all others,
-- and no more than the reserve has left; beyond it, it competes.
local ahead, left = beyond, n
local own = reserves(cs)
for _, r in ipairs(own) do
  left = math.min(left, r.n - r.c.used)
end
if #own > 0 and left > 0 then
  ahead, n = within, left
end

-- The first slot is the latest of the windows' next ones, and the slots are
-- spaced as the slowest of them wants.
local slots, start, every = {}, now, 0
for i = 1, num() do
  local s = {name = take(), every = num(), late = num()}
  local free = tonumber(redis.call('HGET', state, s.name) or '')
  if not free then
    -- The timeline begins, or was lost: after all slots given out before.
    free = now + within
    change(s.name, free)
  end
  s.next = math.max(free, now - s.late)
  if i == 1 then
    start = s.next
  end
  start, every = math.max(start, s.next), math.max(every, s.every)
  slots[i] = s
end
if #slots > 0 then
  n = math.min(n, math.max(0, math.floor((now + ahead - start) / every) + 1))
end

if n > 0 then
  for _, s in ipairs(slots) do
    -- A window that is not the slowest moves on far enough that no message
    -- begins later after its slot than the window's lateness allows.
    s.next = math.ceil(math.max(s.next + n * s.every, start + (n - 1) * every - s.late + s.every))
    change(s.name, s.next)
  end
  for _, c in ipairs(cs) do
    if c.charge then
      count(c, n)
    end
  end
end
for _, s in ipairs(slots) do
  retry = math.max(retry, s.next - ahead - now)
end
save()
return {n, start - now, retry, now}

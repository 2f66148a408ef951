-- Leases up to N messages, after giving back what earlier leases left unused.
--
-- KEYS[1]  p:1, p:2  until when others stand back, because a stream beyond its
--                    reserve, or one within it, wanted more slots than there were
-- ARGV: N; slots taken ahead within the reserve, and beyond it; how long a right
--       of way stands; LATE of what was learned (-1: that binds nothing); GROUP
--       ('': none); COUNT of returns, then AT N each; counters; windows (see lib.lua);
--       COUNT of ramps, then COUNTER NAME START FACTOR CEILING and the other
--       streams' reserves each; own reserve;
--       COUNT of windows kept by slots, then NAME EVERY LATE LEVEL each
-- Returns: granted, delay from now to the first slot (negative: past), ns from
--       one slot to the next, time after which to ask again, now

local want, within, beyond = num(), num(), num()
local stands, learnedLate, group = num(), num(), take()
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

-- Warm-up: a window that grows by the day, and the reserves in it likewise.
local begins = {}
for _ = 1, num() do
  local c, name = cs[num()], 'f:' .. take()
  local size, factor, ceiling = num(), num(), num()
  local first = tonumber(redis.call('HGET', state, name) or '')
  if not first then
    begins[#begins + 1] = name
  end
  for _ = 1, math.floor((now - (first or now)) / 86400000000) do
    if size >= ceiling or factor <= 1 then
      break
    end
    size = size * factor
  end
  local most = math.floor(math.min(size, ceiling))
  local left = most - c.used
  for _, r in ipairs(reserves(cs)) do
    left = left - math.max(0, math.floor(r.n * most / ceiling) - r.c.used)
  end
  if left < 1 then
    retry = math.max(retry, c.frees)
  end
  n = math.min(n, math.max(0, left))
end

-- Within its reserve a stream may take slots further ahead than all others,
-- and no more than the reserve has left; beyond it, it competes.
local ahead, left, right, wanted = beyond, n, 0, n
local own = reserves(cs)
for _, r in ipairs(own) do
  left = math.min(left, r.n - r.c.used)
  right = 1
end
if #own > 0 and left > 0 then
  ahead, n, right = within, left, 2
end

local slots, names = {}, {'p:1', 'p:2', 'k:rate', 't:k'}
for i = 1, num() do
  slots[i] = {name = take(), every = num(), late = num(), level = num()}
  names[4 + i] = slots[i].name
end
if group ~= '' then
  names[#names + 1] = 'k:rate:' .. group
  names[#names + 1] = 't:k:' .. group
end
local values = redis.call('HMGET', state, unpack(names))
for i, s in ipairs(slots) do
  s.next = tonumber(values[4 + i] or '')
end

-- A learned rate is one more timeline. It keeps its last slot instead of the
-- next, because its pace changes.
local function learned(at, name, level)
  local every = tonumber(values[at] or '')
  if every and every > 0 and learnedLate >= 0 then
    local last = tonumber(values[at + 1] or '')
    slots[#slots + 1] = {name = name, every = every, late = learnedLate, level = level,
      next = last and last + every, paced = true}
  end
end
learned(3, 't:k', 0)
if group ~= '' then
  learned(#names - 1, 't:k:' .. group, 2)
end

-- The first slot is the latest of the windows' next ones, and the slots are
-- spaced as the slowest of them wants.
local start, every, late, upTo = now, 0, 0, {}
local first = true
for level = 0, 2 do
  for _, s in ipairs(slots) do
    if s.level == level then
      if not s.next then
        -- The timeline begins, or was lost: after all slots given out before.
        s.next = now + within
        change(s.name, s.paced and math.ceil(s.next - s.every) or s.next)
      end
      s.next = math.max(s.next, now - s.late)
      if first then
        start, late, first = s.next, s.late, false
      end
      start, every, late = math.max(start, s.next), math.max(every, s.every), math.min(late, s.late)
    end
  end
  upTo[level] = {start = start, every = every, late = late, some = not first}
end

-- While a stream with a better right wants more than there was, others wait.
for better = right + 1, 2 do
  local stop = tonumber(values[better] or '') or 0
  if stop > now then
    n, retry = 0, math.max(retry, stop - now)
  end
end

if #slots > 0 then
  start = math.ceil(start)
  local asked = n
  local account = upTo[0]
  n = math.min(n, math.max(0, math.floor((now + ahead - start) / every) + 1))
  for level = 0, 1 do
    local wide = upTo[level]
    if wide.some then
      -- No slot of the wider window is lost to what narrower ones delay.
      local free = math.max(wide.start, now) + wide.late - start
      if free < 0 then
        n, retry = 0, math.max(retry, -free)
      elseif every > wide.every then
        n = math.min(n, math.floor(free / (every - wide.every)) + 1)
      end
    end
  end
  local function short(n, ahead)
    return account.some and n > math.max(0, math.floor((now + ahead - account.start) / account.every) + 1)
  end
  if right > 0 and short(asked, ahead) then
    change('p:' .. right, now + stands)
  elseif right == 2 and asked > 0 and wanted > asked and short(wanted, beyond) then
    change('p:1', now + stands) -- it goes on beyond its reserve
  end
end

if n > 0 then
  for _, s in ipairs(slots) do
    -- A window that is not the slowest moves on far enough that no message
    -- begins later after its slot than the window's lateness allows.
    s.next = math.ceil(math.max(s.next + n * s.every, start + (n - 1) * every - s.late + s.every))
    change(s.name, s.paced and math.ceil(s.next - s.every) or s.next)
  end
  for _, c in ipairs(cs) do
    if c.charge then
      count(c, n)
    end
  end
  for _, name in ipairs(begins) do
    change(name, now)
  end
end
for _, s in ipairs(slots) do
  retry = math.max(retry, s.next - ahead - now)
end
save()
return {n, start - now, math.floor(every * 1000 + 0.5), math.ceil(retry), now}

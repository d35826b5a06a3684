package packages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A reader of one table in a file of SQLite, by its file format (https://www.sqlite.org/fileformat2.html): a file is
// pages, and a table a tree of pages, whose leaves have the rows. A row that does not fit has the rest of it in a chain
// of pages.

const (
	sqliteMagic         = "SQLite format 3\x00"
	sqliteHead          = 100 // bytes before the first page's own
	tableNode, tableRow = 0x05, 0x0d
	maxDepth            = 16      // a tree of 2^32 pages is less deep
	maxRow              = 1 << 31 // bytes that SQLite can store in a row
	packagesTable       = "Packages"
)

var errSQLite = errors.New("it is not an intact SQLite database")

// maxTables bounds how many tables and indexes are looked at; rpm has some twenty.
const maxTables = 1000

// sqlite is a file of SQLite.
type sqlite struct {
	f            io.ReaderAt
	page, usable int64
	left         int64 // pages of trees that may still be read: in an intact file, no page is in a tree twice
}

// readSQLite calls visit with the beginning of each value in the table of packages.
func readSQLite(f io.ReaderAt, size int64, visit func([]byte) error) error {
	head := make([]byte, sqliteHead)
	if _, err := f.ReadAt(head, 0); err != nil || string(head[:len(sqliteMagic)]) != sqliteMagic {
		return errSQLite
	}
	page := int64(binary.BigEndian.Uint16(head[16:]))
	if page == 1 {
		page = 64 << 10
	}
	s := &sqlite{f: f, page: page, usable: page - int64(head[20])}
	if page < 512 || page&(page-1) != 0 || s.usable < 480 {
		return fmt.Errorf("%w: its pages have %d bytes", errSQLite, page)
	}
	s.left = size/page + 1
	var table int64
	listed := 0
	err := s.rows(1, 0, func(row []byte) error { // the first tree lists the others
		if listed++; listed > maxTables {
			return fmt.Errorf("%w: it has more than %d tables and indexes", errSQLite, maxTables)
		}
		columns, err := columnsOf(row)
		if err == nil && len(columns) >= 4 && string(columns[0]) == "table" && string(columns[1]) == packagesTable {
			table = number(columns[3])
		}
		return err
	})
	if err == nil && table == 0 {
		err = fmt.Errorf("it has no table %s", packagesTable)
	}
	if err != nil {
		return err
	}
	return s.rows(table, 0, func(row []byte) error {
		columns, err := columnsOf(row)
		if err != nil {
			return err
		}
		if len(columns) != 2 { // the number of the header, and the header
			return fmt.Errorf("%w: a row of %s has %d columns", errSQLite, packagesTable, len(columns))
		}
		return visit(columns[1])
	})
}

// rows calls visit with the beginning of each row in the tree at a page.
func (s *sqlite) rows(at int64, depth int, visit func([]byte) error) error {
	if s.left--; s.left < 0 || depth > maxDepth {
		return fmt.Errorf("%w: a tree of pages does not end", errSQLite)
	}
	page, err := s.read(at)
	if err != nil {
		return err
	}
	head := page
	if at == 1 {
		head = page[sqliteHead:]
	}
	kind, cells, pointers := head[0], int(binary.BigEndian.Uint16(head[3:])), head[8:]
	if kind == tableNode {
		pointers = head[12:]
	} else if kind != tableRow {
		return fmt.Errorf("%w: page %d is of no table", errSQLite, at)
	}
	if cells*2 > len(pointers) {
		return fmt.Errorf("%w: page %d has %d cells", errSQLite, at, cells)
	}
	for i := range cells {
		cell := int64(binary.BigEndian.Uint16(pointers[2*i:]))
		if cell+4 > s.usable {
			return fmt.Errorf("%w: a cell of page %d is outside of it", errSQLite, at)
		}
		if kind == tableNode {
			err = s.rows(int64(binary.BigEndian.Uint32(page[cell:])), depth+1, visit)
		} else {
			err = s.row(page[cell:s.usable], visit)
		}
		if err != nil {
			return err
		}
	}
	if kind == tableNode {
		return s.rows(int64(binary.BigEndian.Uint32(head[8:])), depth+1, visit)
	}
	return nil
}

// row calls visit with the beginning of the row in a cell of a leaf.
func (s *sqlite) row(cell []byte, visit func([]byte) error) error {
	length, n := varint(cell)
	_, m := varint(cell[n:])
	if n == 0 || m == 0 || length < 0 || length > maxRow {
		return fmt.Errorf("%w: a row has no length that can be", errSQLite)
	}
	cell = cell[n+m:]
	here := length
	if most := s.usable - 35; length > most {
		least := (s.usable-12)*32/255 - 23
		if here = least + (length-least)%(s.usable-4); here > most {
			here = least
		}
	}
	if here > int64(len(cell)) || here < length && here+4 > int64(len(cell)) {
		return fmt.Errorf("%w: a row is outside of its page", errSQLite)
	}
	row := append([]byte{}, cell[:here]...)
	if here < length {
		next := int64(binary.BigEndian.Uint32(cell[here:]))
		for want := min(length, maxHeader); int64(len(row)) < want; {
			page, err := s.read(next)
			if err != nil {
				return err
			}
			next = int64(binary.BigEndian.Uint32(page))
			row = append(row, page[4:min(s.usable, 4+length-int64(len(row)))]...)
		}
	}
	return visit(row)
}

// read returns a page; the first has number 1.
func (s *sqlite) read(number int64) ([]byte, error) {
	page := make([]byte, s.page)
	if number < 1 {
		return nil, fmt.Errorf("%w: a page has number %d", errSQLite, number)
	}
	if _, err := s.f.ReadAt(page, (number-1)*s.page); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", errSQLite, number, err)
	}
	return page, nil
}

// columnsOf returns the values of a row of which the end may be missing. Numbers are in their bytes.
func columnsOf(row []byte) ([][]byte, error) {
	length, n := varint(row)
	if n == 0 || length < int64(n) || length > int64(len(row)) {
		return nil, fmt.Errorf("%w: a row has no columns", errSQLite)
	}
	types, values := row[n:length], row[length:]
	var columns [][]byte
	for len(types) > 0 {
		kind, n := varint(types)
		if n == 0 || kind < 0 {
			return nil, fmt.Errorf("%w: a column has no type", errSQLite)
		}
		size := min(sizeOf(kind), int64(len(values)))
		columns = append(columns, values[:size])
		types, values = types[n:], values[size:]
	}
	return columns, nil
}

// sizeOf returns how many bytes a value of a type has.
func sizeOf(kind int64) int64 {
	numbers := [...]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0}
	if kind < int64(len(numbers)) {
		return numbers[kind]
	}
	return (kind - int64(len(numbers))) / 2
}

// number returns the positive number in the bytes of a value; 0 if there is none.
func number(value []byte) (n int64) {
	if len(value) > 6 {
		return 0
	}
	for _, b := range value {
		n = n<<8 | int64(b)
	}
	return n
}

// varint returns the number at the beginning of data, and how many bytes it has; 0 if it does not end.
func varint(data []byte) (n int64, size int) {
	const longest = 9
	for i, b := range data[:min(len(data), longest)] {
		if i == longest-1 {
			return n<<8 | int64(b), longest
		}
		if n = n<<7 | int64(b&0x7f); b < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}

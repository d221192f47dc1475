"""Tables of points as other programs write them: read right, or refused; never wrong."""

import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voxmill.config.base import SettingError
from voxmill.config.volumes import GroundTruthSection, table_reading
from voxmill.evaluation import point_tables, text_tables
from voxmill.evaluation.ground_truth import read_truth
from voxmill.evaluation.point_columns import TruthReading
from voxmill.evaluation.point_tables import read_points
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError

SHAPE = (64, 64, 64)
SIZE = (5.0, 2.0, 2.0)
EXPECTED = [[1.5, 30.25, 10.75], [2, 31, 11]]
IMARIS = (
    "\nPosition\n====================\n"
    "Position X,Position Y,Position Z,Unit,Category,Collection,Time,TrackID,ID,\n"
)


def read(tmp_path, text, encoding="utf-8", suffix=".csv", **reading):
    path = tmp_path / f"cells{suffix}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_truth(path, "points", SHAPE, SIZE, **reading).tolist()


def refused(tmp_path, text, match, **more):
    with pytest.raises(VoxmillError, match=rf"(?s)cells\.\w+: .*{match}"):
        read(tmp_path, text, **more)


@pytest.mark.parametrize(
    "text",
    [
        "z_vox;y_vox;x_vox\r\n1,5;30,25;10,75\r\n2;31;11\r\n",
        "z\ty\tx\n1.5\t30.25\t10.75\n2\t31\t11\n",
        "z\ty\tx\n1,5\t30,25\t10,75\n2\t31\t11\n",
        "  z      y      x\n1.50  30.25  10.75\n2.00  31.00  11.00\n",
        "# z y x\n1.5e+00 3.025e+01 1.075e+01\n2 31 11\n",
        "sep=;\nz;y;x\n1,5;30,25;10,75\n2;31;11\n",
        "z|y|x\n1.5|30.25|10.75\n2|31|11\n",
        '"z","y","x"\n"1,5","30,25","10,75"\n"2","31","11"\n',
        "Z,Y,X\n1.5,30.25,10.75\n2,31,11\n",
        " z_vox , y_vox , x_vox \n 1.5 , 30.25 , 10.75 \n 2 , 31 , 11 \n",
        "Z [px],Y [px],X [px]\n1.5,30.25,10.75\n2,31,11\n",
        "X (µm),Y (µm),Z (µm)\n21.5,60.5,7.5\n22,62,10\n",
        "X (px);Y (px);Z (μm)\n10,75;30,25;7,5\n11;31;10\n",
        "Z_MICROMETERS,Y_MICROMETERS,X_MICROMETERS\n7.5,60.5,21.5\n10,62,22\n",
        "x_nm,y_nm,z_nm\n21500,60500,7500\n22000,62000,10000\n",
        # A separator behind the last column, of rows, header or both; rows without a point.
        "z,y,x\n1.5,30.25,10.75,\n2,31,11,\n",
        "z,y,x,\n1.5,30.25,10.75\n2,31,11\n",
        "z,y,x,\n1.5,30.25,10.75,\n,,,\n\n2,31,11,\n",
        # R's row names.
        '"z","y","x"\n"1",1.5,30.25,10.75\n"2",2,31,11\n',
        '"z" "y" "x"\n"a" 1.5 30.25 10.75\n"b" 2 31 11\n',
        '"","z","y","x"\n"1",1.5,30.25,10.75\n"2",2,31,11\n',
        # napari with a time point, Imaris, BrainGlobe.
        "index,axis-0,axis-1,axis-2,axis-3\n0,4,1.5,30.25,10.75\n1,4,2,31,11\n",
        IMARIS + "21.5,60.5,7.5,um,Spot,Position,1,,0,\n22,62,10,um,Spot,Position,1,,1,\n",
        ",x,y,z,type\n0,10.75,30.25,1.5,2\n1,11,31,2,2\n",
        # Ends of lines of old Macs.
        "z,y,x\r1.5,30.25,10.75\r2,31,11\r",
    ],
)
def test_tables_of_many_programs(tmp_path, text):
    assert read(tmp_path, text) == EXPECTED


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings(tmp_path, encoding):
    text = "X (µm)\tY (µm)\tZ (µm)\r\n21.5\t60.5\t7.5\r\n22\t62\t10\r\n"
    assert read(tmp_path, text, encoding) == EXPECTED


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        (" ,Area,X,Y,Slice\n1,12,10.75,30.25,2.5\n2,12,11,31,3\n", {"units": "vox"}),
        (" ,Area,X,Y,Slice\n1,12,21.5,60.5,2.5\n2,12,22,62,3\n", {"units": "um"}),
        (
            " ,Area,X,Y,Slice\n1,12,21.5,60.5,2.5\n2,12,22,62,3\n",
            {"columns": ["Slice", "Y", "X"], "units": "um"},
        ),
        ("10.75,30.25,1.5\n11,31,2\n", {"columns": [3, 2, 1], "units": "vox"}),
        ("10,75;30,25;1,5\n11;31;2\n", {"columns": [3, 2, 1], "units": "vox"}),
        ("a\tb\tc\n21.5\t60.5\t7.5\n22\t62\t10\n", {"columns": [3, 2, 1], "units": "um"}),
        ("plane,row,col\n1.5,30.25,10.75\n2,31,11\n",
         {"columns": ["Plane", "row", "col"], "units": "vox"}),
        ("z,y,x\n2.5,31.25,11.75\n3,32,12\n", {"offset_vox": [-1, -1, -1]}),
        ("z,y,x\n7.5,60.5,21.5\n10,62,22\n", {"units": "um"}),
        ("centroid-0,centroid-1,centroid-2\n1.5,30.25,10.75\n2,31,11\n", {"units": "vox"}),
        (
            "Position X (um),Position Y (um),Position Z (um),Centroid X (um),Centroid Y (um),"
            "Centroid Z (um)\n0,0,0,21.5,60.5,7.5\n0,0,0,22,62,10\n",
            {"columns": ["Centroid Z (um)", "Centroid Y (um)", "Centroid X (um)"]},
        ),
    ],
)  # fmt: skip
def test_what_the_configuration_says_of_a_table(tmp_path, text, reading):
    assert read(tmp_path, text, **reading) == EXPECTED


@pytest.mark.parametrize(
    ("text", "match"),
    [
        # Decimal commas between commas: six fields, four, and as many as R's row names.
        ("z_vox,y_vox,x_vox\n1,5,30,2,10,7\n", "3 fields in line 2,.* found 6 between commas"),
        ("z,y,x\n1,2,3\n1,5,30,7\n", "3 fields in line 3,.* found 4 between commas.*decimal comma"),
        ("z,y,x\n1,5,30,7\n", "3 fields in line 2,.* found 4"),
        ('z,y,x\n"1,5",30,7,8\n', "3 fields in line 2,.* found 4"),
        ('z,y,x\n"1",1,2,3\n1,5,2,3\n', "3 fields in line 3"),
        ('z,y,x\n"1",1,2,3\n1,2,3\n', "3 fields in line 3"),
        ("z\ty\tx\n1\t2\t3\t4\n", "3 fields in line 2,.* found 4 between tabs"),
        ("z,y,x,score\n1,2,3,1\n1,2,3\n", "4 fields in line 3,.* found 3"),
        ("z,y,x\n1;2;3\n", "3 fields in line 2,.* found 1"),
        ('z,y,x\n1,"2,3\n4,5,6\n', "3 fields in line 3"),
        # Numbers.
        ("z;y;x\n1,5;2.5;3\n", "decimal points or decimal commas, found both"),
        ('z,y,x\n"1,500",2,3\n', "decimals or for thousands"),
        ("z;y;x\n1.234,5;2;3\n", "a number in column 'z' of data row 1, found '1.234,5'"),
        ("z,y,x\n1,1_0,3\n", "a number in column 'y' .*'1_0' \\(line 2\\)"),
        ("z,y,x\n1,nan,3\n", "a number in column 'y'"),
        ("z,y,x\n1,1e999,3\n", "a number in column 'y'"),
        # Meanings.
        ("10,20,30\n11,21,31\n", "in a header, found numbers: 10, 20, 30.*`columns:"),
        (" ,Area,X,Y,Slice\n1,12,30,20,11\n", "Fiji writes pixels or the calibrated unit"),
        (" ,X,Y,Z\n1,30,20,11\n", "`units: vox` or `units: um`"),
        ("Position X,Position Y,Position Z\n1,2,3\n", "unit in the name .*`units: vox`"),
        ("label,centroid-0,centroid-1,centroid-2\n1,2,3,4\n", "unit in the name"),
        ("Z (a.u.),Y (a.u.),X (a.u.)\n1,2,3\n", "voxels or a length .*'a.u.'"),
        ("Z (µm),Y,X\n1,2,3\n", "unit in the name of column 'Y'"),
        ("x,y,z,x\n1,2,3,4\n", "expected the columns .* found x, y, z, x"),
        ("x_um,y_um,z_um,pos_x_um,pos_y_um,pos_z_um\n1,2,3,4,5,6\n", "found several"),
        ("y,x\n1,2\n", "expected the columns .* found y, x"),
        ("index,axis-0,axis-1\n0,1,2\n", "three axes .*found 2"),
        ("index,axis-0,axis-1,axis-2,axis-3\n0,0,1,2,3\n1,1,1,2,3\n", "one value .*'axis-0'"),
        ("index,shape-type,vertex-index,axis-0,axis-1,axis-2\n0,line,0,1,2,3\n", "layer of shapes"),
        ("t,z,y,x\n0,1,2,3\n1,1,2,3\n", "one value in column 't' .*line 3"),
        (IMARIS + "1,1,1,um,Spot,P,1,,0,\n1,1,1,um,Spot,P,2,,1,\n", "one value .*'Time'"),
        (IMARIS + "1,1,1,um,Spot,P,1,,0,\n1,1,1,mm,Spot,P,1,,1,\n", "one value .*'Unit'"),
        (IMARIS + "1,1,1,px3,Spot,P,1,,0,\n", "column of units, found 'px3'"),
        # Files.
        (b"\x93NUMPY\x01\x00v\x00{'descr': ", "binary file .*CSV"),
        (b"z,y,x\n1,2,3\n" + b" " * 5000 + b"\0", "NUL in line 3"),
        (b"1," * 2_000_000, "lines of at most 1048576 characters, found a longer line 1"),
        (b"z,y,x\n" + b"1 " * 2_000_000, "found a longer line 2"),
        ("", "found an empty file"),
        ("\n \n\n", "found an empty file"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, text, match):
    refused(tmp_path, text, match)


@pytest.mark.parametrize(
    ("text", "reading", "match"),
    [
        ("1,2,3\n", {"columns": [3, 2, 1]}, "unit in the name"),
        ("1,2,3\n", {"columns": [3, 3, 1], "units": "vox"}, "three different"),
        ("1,2,3\n", {"columns": [3, 2, 9], "units": "vox"}, "numbers in the columns 3, 2, 9"),
        ("a,b,c\n1,2,3\n", {"columns": ["a", "b", "d"], "units": "vox"}, "header with .*'d'"),
        ("a,b,c\n1,2,3\n", {"columns": ["a", "b", "c"]}, "unit in the name of column 'a'"),
        ("x_um,y_um,z_um\n1,2,3\n", {"units": "vox"}, "columns in vox, .* found z_um"),
        ("x_um,y_um,z_um\n1,2,3\n", {"columns": ["z_um", "y_um", "x_um"], "units": "vox"},
         "'z_um' is not in vox"),
    ],
)  # fmt: skip
def test_a_configuration_that_does_not_fit_the_table(tmp_path, text, reading, match):
    refused(tmp_path, text, match, **reading)


def test_points_that_are_counted_from_1_are_named(tmp_path):
    refused(tmp_path, "z,y,x\n1,1,1\n64,64,64\n", r"Counted from 1 .*`offset_vox: \[-1, -1, -1\]`")


def test_files_that_are_no_tables(tmp_path):
    for path, match in (
        (tmp_path, "found a folder"),
        (tmp_path / "a\0.csv", "can't be read"),
        (tmp_path / "no.csv", "does not exist"),
        ("/dev/null", "a pipe, a socket or a device"),
    ):
        with pytest.raises(VoxmillError, match=match):
            read_truth(path, "points", SHAPE, SIZE)


@pytest.mark.parametrize(
    ("suffix", "match"),
    [(".xlsx", "workbook.*CSV"), (".npy", "CSV"), (".xml", "program.*CSV"), (".yml", "CSV")],
)
def test_other_files_say_what_to_do(tmp_path, suffix, match):
    path = tmp_path / f"cells{suffix}"
    path.write_bytes(b"PK\x03\x04")
    for kind in (None, "points"):
        with pytest.raises(VoxmillError, match=match):
            read_truth(path, kind, SHAPE, SIZE)
    with pytest.raises(SettingError, match=match):
        GroundTruthSection(path=str(path))


def test_large_tables_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "MAX_BYTES", 1 << 20)
    refused(tmp_path, b"z,y,x\n" * 400_000, "at most 1 MiB, found 2 MiB")
    monkeypatch.setattr(point_tables, "MAX_POINTS", 2)
    refused(tmp_path, "z,y,x\n" + "1,2,3\n" * 3, "at most 2 points")


def test_imaris_counts_from_a_corner(tmp_path, caplog):
    text = IMARIS + "1,3,5,um,Spot,Position,1,,0,\n"
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, text) == [[1, 1.5, 0.5]]
    assert "Imaris counts from its corner" in caplog.text
    caplog.clear()
    assert read(tmp_path, text, offset_vox=[-0.5, -0.5, -0.5]) == [[0.5, 1, 0]]
    assert not caplog.text


def test_types_of_rows_are_mentioned(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "x,y,z,type\n1,2,3,1\n1,2,3,2\n")
    assert "the column 'type' holds 1, 2" in caplog.text


def markers(image, **by_type):
    types = "".join(
        f"<Marker_Type><Type>{name[1:]}</Type>"
        + "".join(
            f"<Marker><MarkerX>{x}</MarkerX><MarkerY>{y}</MarkerY><MarkerZ>{z}</MarkerZ></Marker>"
            for z, y, x in points
        )
        + "</Marker_Type>"
        for name, points in by_type.items()
    )
    return (
        "<?xml version='1.0' encoding='UTF-8'?><CellCounter_Marker_File><Image_Properties>"
        f"<Image_Filename>{image}</Image_Filename></Image_Properties><Marker_Data>"
        f"<Current_Type>1</Current_Type>{types}</Marker_Data></CellCounter_Marker_File>"
    )


def test_markers_in_xml(tmp_path, caplog):
    cellfinder = markers("placeholder.tif", t1=[(9, 9, 9)], t2=[(5, 4, 3), (6, 4, 3)])
    where = {"suffix": ".xml", "offset_vox": [0, 0, 0]}
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, cellfinder, **where) == [[5, 4, 3], [6, 4, 3]]
    assert "1 markers that are no cells are left out" in caplog.text
    counter = markers("stack.tif", t1=[(5, 4, 3)], t2=[], t3=[])
    assert read(tmp_path, counter, suffix=".xml", offset_vox=[-1, 0, 0]) == [[4, 4, 3]]
    for text, match in (
        (markers("placeholder.tif", t1=[(5, 4, 3)]), "not classified"),
        (markers("stack.tif", t1=[(5, 4, 3)], t4=[(5, 4, 3)]), "one type, found the types 1, 4"),
        (markers("stack.tif", t1=[("", 4, 3)]), "numbers in MarkerZ"),
        (cellfinder[:200], "damaged"),
        ("<annotation/>", "CellCounter_Marker_File, found annotation"),
    ):
        refused(tmp_path, text, match, **where)


NUMBERS = st.integers(0, 6300).map(lambda n: n / 100)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    points=POINTS,
    separator=st.sampled_from(",;\t| "),
    decimal=st.sampled_from(".,"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    order=st.permutations(["z", "y", "x", "note é"]),
    trailing=st.booleans(),
    quoted=st.booleans(),
)  # fmt: skip
def test_any_way_to_write_a_table_gives_its_points_or_an_error(
    tmp_path, points, separator, decimal, encoding, end, order, trailing, quoted
):
    def row(values):
        values = [f'"{value}"' if quoted else value for value in values]
        return separator.join(values) + (separator if trailing else "") + end

    def number(value):
        return f"{value:.2f}".replace(".", decimal)

    if separator == " " and not quoted:
        order = [name.replace(" ", "_") for name in order]
    text = row(order)
    for point in points:
        text += row([number(dict(zip("zyx", point, strict=True)).get(n, 7.5)) for n in order])
    if separator == "," and decimal == "," and not quoted:
        refused(tmp_path, text, "fields in line 2", encoding=encoding)
        return
    assert read(tmp_path, text, encoding) == [list(point) for point in points]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.sampled_from(
        [
            b"z_vox,y_vox,x_vox\n1,2,3\n4,5,6\n",
            IMARIS.encode() + b"1,1,1,um,Spot,P,1,,0,\n",
            b"\xff\xfe" + "z;y;x\n1,5;2;3\n".encode("utf-16-le"),
            markers("placeholder.tif", t2=[(5, 4, 3)]).encode(),
        ]
    ),
    place=st.floats(0, 1),
    new=st.binary(max_size=6),
    cut=st.integers(0, 6),
)  # fmt: skip
@example(text=b"", place=0, new=b"\xff\xfe", cut=0)
@example(text=b"", place=0, new=b'"', cut=0)
@example(text=b"z,y,x\n", place=1, new=b'"\n,', cut=0)
def test_damaged_tables_end_in_points_or_in_an_error(tmp_path, text, place, new, cut):
    start = int(place * len(text))
    damaged = text[:start] + new + text[start + cut :]
    for suffix in (".csv", ".xml"):
        path = tmp_path / f"cells{suffix}"
        path.write_bytes(damaged)
        try:
            points = read_points(path, VoxelSize(*SIZE), TruthReading(offset_vox=(0, 0, 0)))
        except VoxmillError as error:
            assert path.name in str(error)
        else:
            assert points.shape[1:] == (3,)
            assert np.isfinite(points).all()


# One cell as each program writes it: its centre is voxel z = 3, y = 4, x = 5 of 5 x 2 x 2 um.
OF_PROGRAMS = {
    "napari": ("points.csv", "index,axis-0,axis-1,axis-2\n0,3,4,5\n", {}),
    "fiji": ("Results.csv", " ,X,Y,Slice\n1,5.5,4.5,4\n", {"units": "vox"}),
    "fiji, calibrated": ("Results.csv", " ,X,Y,Slice\n1,11,9,4\n", {"units": "um"}),
    "imaris": (
        "spots.csv",
        "\nSpots\n====\nPosition X,Position Y,Position Z,Unit,Time,ID\n11,9,17.5,um,1,0\n",
        {},
    ),
    "cellfinder": (
        "cells.xml",
        "<CellCounter_Marker_File><Image_Properties><Image_Filename>placeholder.tif"
        "</Image_Filename></Image_Properties><Marker_Data><Marker_Type><Type>2</Type><Marker>"
        "<MarkerX>5</MarkerX><MarkerY>4</MarkerY><MarkerZ>3</MarkerZ></Marker></Marker_Type>"
        "</Marker_Data></CellCounter_Marker_File>",
        {},
    ),
    "cell_counter": (
        "CellCounter.xml",
        "<CellCounter_Marker_File><Image_Properties><Image_Filename>a.tif</Image_Filename>"
        "</Image_Properties><Marker_Data><Marker_Type><Type>1</Type><Marker><MarkerX>5</MarkerX>"
        "<MarkerY>4</MarkerY><MarkerZ>4</MarkerZ></Marker></Marker_Type></Marker_Data>"
        "</CellCounter_Marker_File>",
        {},
    ),
    "brainglobe": ("points.csv", "x,y,z,type\n5,4,3,cell\n", {}),
}


@pytest.mark.parametrize("name", OF_PROGRAMS)
@pytest.mark.parametrize("crop", [None, [100, 0, 7]])
def test_a_program_is_named_and_its_way_of_counting_known(tmp_path, name, crop):
    file, text, keys = OF_PROGRAMS[name]
    (tmp_path / file).write_text(text)
    section = {"path": str(tmp_path / file), "program": name.split(",")[0]} | keys
    if crop:
        section["offset_vox"] = crop
    truth = GroundTruthSection.from_dict(section).plain()
    assert truth["kind"] == "points"
    points = read_points(truth["path"], VoxelSize(5, 2, 2), TruthReading(**table_reading(truth)))
    np.testing.assert_allclose(points, [np.add([3, 4, 5], crop or 0)])


def test_a_program_belongs_to_tables_of_points_alone():
    with pytest.raises(VoxmillError, match="program: only tables of points have it"):
        GroundTruthSection.from_dict({"path": "m.tif", "kind": "mask", "program": "fiji"})
    with pytest.raises(VoxmillError, match="program: cellfinder"):
        GroundTruthSection.from_dict({"path": "cells.xml"})
